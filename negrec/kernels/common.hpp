// What the kernels share.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

using std::int64_t;

// A function that Python calls: pointers, int64_t and double, the number of threads last.
#define NEGREC extern "C" __attribute__((visibility("default")))
