// Python lists of ids -> keys. Called with the interpreter's lock held (ctypes.PyDLL).
//
// Python's headers are not needed: these five functions are in its stable ABI. They are weak, so that a host which
// hides them costs speed only.
#include "abi.h"
#include "blake2b.h"

extern "C" {
__attribute__((weak)) void* PyList_GetItem(void* list, intptr_t at);  // a borrowed reference
__attribute__((weak)) long long PyLong_AsLongLong(void* number);
__attribute__((weak)) const char* PyUnicode_AsUTF8AndSize(void* text, intptr_t* bytes);
__attribute__((weak)) void* PyErr_Occurred();
__attribute__((weak)) void PyErr_Clear();
}

// Both return how many items from the front could be read: fewer than `count` where one is not what is expected.
RK_EXPORT int64_t RK_FOR_ISA(rk_int_keys)(void* list, int64_t count, int64_t* keys) {
  if (!PyList_GetItem || !PyLong_AsLongLong || !PyErr_Occurred || !PyErr_Clear) return 0;
  for (int64_t i = 0; i < count; i++) {
    void* item = PyList_GetItem(list, i);
    keys[i] = item ? PyLong_AsLongLong(item) : -1;
    if (keys[i] == -1 && PyErr_Occurred()) {
      PyErr_Clear();
      return i;
    }
  }
  return count;
}

RK_EXPORT int64_t RK_FOR_ISA(rk_string_keys)(void* list, int64_t count, int64_t* keys) {
  if (!PyList_GetItem || !PyUnicode_AsUTF8AndSize || !PyErr_Clear) return 0;
  Hasher hasher{keys, {}, {}, 0};
  for (int64_t i = 0; i < count; i++) {
    void* item = PyList_GetItem(list, i);
    intptr_t bytes = 0;
    const char* text = item ? PyUnicode_AsUTF8AndSize(item, &bytes) : nullptr;
    if (!text) {
      PyErr_Clear();
      return i;
    }
    hasher.add(text, bytes);
  }
  hasher.flush();
  return count;
}
