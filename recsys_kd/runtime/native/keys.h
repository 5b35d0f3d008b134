// Python lists of ids -> keys. Called with the interpreter's lock held.
#pragma once
#include "blake2b.h"
#include "python.h"

namespace {

// Both read `count` items from `start` on, and return how many from the front could be read: fewer than `count` where one
// is not what is expected.
inline int64_t int_keys(void* list, int64_t start, int64_t count, int64_t* keys) {
  for (int64_t i = 0; i < count; i++) {
    void* item = PyList_GetItem(list, start + i);
    if (is_truth(item)) return i;
    keys[i] = item ? PyLong_AsLongLong(item) : -1;
    if (keys[i] == -1 && PyErr_Occurred()) {
      PyErr_Clear();
      return i;
    }
  }
  return count;
}

inline int64_t string_keys(void* list, int64_t start, int64_t count, int64_t* keys) {
  Hasher hasher{keys, {}, {}, 0};
  for (int64_t i = 0; i < count; i++) {
    void* item = PyList_GetItem(list, start + i);
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

}  // namespace
