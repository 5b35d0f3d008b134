// What the kernel asks of the interpreter: functions of Python's stable ABI, declared here, so that its headers are not
// needed and one library serves every version from 3.11 on. They are weak: a host which hides them costs speed only.
#pragma once
#include <cstdint>

#define RK_WEAK __attribute__((weak))

extern "C" {

// Py_buffer: a view of an object's memory.
struct rk_view {
  void* data;
  void* owner;
  intptr_t bytes, item_bytes;
  int readonly, dims;
  const char* format;
  const intptr_t *shape, *strides, *suboffsets;
  void* internal;
};

// PyMethodDef of a function that is given its arguments as an array.
struct rk_method {
  const char* name;
  void* (*call)(void* self, void* const* given, intptr_t count);
  int flags;
  const char* text;
};

RK_WEAK extern char PyLong_Type[], PyFloat_Type[], PyUnicode_Type[], PyList_Type[], _Py_NoneStruct[], _Py_TrueStruct[],
    _Py_FalseStruct[];
RK_WEAK void* PyDict_GetItemWithError(void* dict, void* key);  // a borrowed reference
RK_WEAK intptr_t PyDict_Size(void* dict);
RK_WEAK void* PyList_GetItem(void* list, intptr_t at);  // a borrowed reference
RK_WEAK intptr_t PyList_Size(void* list);
RK_WEAK int PyObject_IsInstance(void* object, void* type);
RK_WEAK void* PyObject_Type(void* object);  // a new reference
RK_WEAK long long PyLong_AsLongLong(void* number);
RK_WEAK void* PyLong_AsVoidPtr(void* number);
RK_WEAK void* PyLong_FromLong(long number);
RK_WEAK void* PyCFunction_NewEx(rk_method* method, void* self, void* module);
RK_WEAK double PyFloat_AsDouble(void* number);
RK_WEAK const char* PyUnicode_AsUTF8AndSize(void* text, intptr_t* bytes);
RK_WEAK int PyObject_GetBuffer(void* object, rk_view* view, int flags);
RK_WEAK void PyBuffer_Release(rk_view* view);
RK_WEAK void Py_IncRef(void* object);
RK_WEAK void Py_DecRef(void* object);
RK_WEAK void* PyErr_Occurred();
RK_WEAK void PyErr_Clear();
RK_WEAK void* PyEval_SaveThread();
RK_WEAK void PyEval_RestoreThread(void* state);

}  // extern "C"

namespace {

constexpr int VIEW_WRITABLE = 1, VIEW_FORMAT = 4, VIEW_CONTIGUOUS = 0x38;  // PyBUF_C_CONTIGUOUS
constexpr int METHOD_FAST = 0x80;                                          // METH_FASTCALL

inline bool python_is_there() {
  return PyDict_GetItemWithError && PyDict_Size && PyList_GetItem && PyList_Size && PyObject_IsInstance &&
         PyObject_Type &&         PyLong_AsLongLong && PyLong_AsVoidPtr && PyLong_FromLong && PyCFunction_NewEx && PyFloat_AsDouble &&
         PyUnicode_AsUTF8AndSize && PyObject_GetBuffer && PyBuffer_Release && Py_IncRef && Py_DecRef && PyErr_Occurred &&
         PyErr_Clear && PyEval_SaveThread && PyEval_RestoreThread && PyLong_Type && PyFloat_Type && PyUnicode_Type &&
         PyList_Type && _Py_NoneStruct && _Py_TrueStruct && _Py_FalseStruct;
}

inline bool is(void* object, char* type) { return PyObject_IsInstance(object, type) == 1; }

// Whether both are of the very same class.
inline bool alike(void* one, void* two) {
  void *first = PyObject_Type(one), *second = PyObject_Type(two);
  const bool same = first && first == second;
  if (first) Py_DecRef(first);
  if (second) Py_DecRef(second);
  return same;
}

// Which Python counts among the integers; they are no ids.
inline bool is_truth(void* object) { return object == _Py_TrueStruct || object == _Py_FalseStruct; }

}  // namespace
