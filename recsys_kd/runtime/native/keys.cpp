// Python lists of ids -> keys, for recsys_kd/runtime/encode.py. Called with the interpreter's lock held (ctypes.PyDLL).
#include "abi.h"
#include "keys.h"

RK_EXPORT int64_t RK_FOR_ISA(rk_int_keys)(void* list, int64_t count, int64_t* keys) {
  return python_is_there() ? int_keys(list, 0, count, keys) : 0;
}

RK_EXPORT int64_t RK_FOR_ISA(rk_string_keys)(void* list, int64_t count, int64_t* keys) {
  return python_is_there() ? string_keys(list, 0, count, keys) : 0;
}
