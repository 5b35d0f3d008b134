// One request of raw Python values -> scores in one call, as a function of Python's own (ctypes takes a microsecond per
// call). It lets go of the interpreter's lock while it scores.
//
// It knows the usual types only: a dict of ints, strings, floats, lists and NumPy arrays. Anything else is left to
// recsys_kd/runtime/encode.py, which takes more, and explains what is wrong.
#include <cmath>
#include <cstdlib>

#include "abi.h"
#include "keys.h"

extern "C" int RK_FOR_ISA(rk_score)(const rk_model*, int64_t, const int64_t*, const int64_t*, const int64_t*,
                                    const int64_t*, const float*, const int64_t*, const int64_t* const*,
                                    const float* const*, int, float*, int64_t*);

namespace {

constexpr int64_t MISSING = INT64_MIN;

// A list, or a view of an array, or neither: then there are none.
struct Values {
  void* list;
  rk_view view;
  int64_t count;

  const int64_t* ints() const { return view.owner ? static_cast<const int64_t*>(view.data) : nullptr; }
  void close() {
    if (view.owner) PyBuffer_Release(&view);
  }
};

// Whether an object is a list or an int64 array of one dimension; `array` is one for sure. Others lend memory, too, and
// mean another thing by it: a masked array hides some of its values.
inline bool open_values(void* object, void* array, Values& values) {
  if (is(object, PyList_Type)) {
    values.list = object;
    values.count = PyList_Size(object);
    return true;
  }
  if (!alike(object, array) || PyObject_GetBuffer(object, &values.view, VIEW_FORMAT | VIEW_CONTIGUOUS)) return false;
  const rk_view& view = values.view;
  values.count = view.dims == 1 ? view.shape[0] : 0;
  const char* kind = view.format ? view.format : "";
  return view.dims == 1 && view.item_bytes == 8 && (kind[0] == 'l' || kind[0] == 'q') && !kind[1];
}

// The last `count` of them as keys.
inline bool read_keys(const Values& values, bool strings, int64_t count, int64_t* keys) {
  if (!values.list) {
    if (strings && count) return false;
    if (count) memcpy(keys, values.ints() + values.count - count, sizeof(int64_t) * static_cast<size_t>(count));
    return true;
  }
  const int64_t start = values.count - count;
  return (strings ? string_keys(values.list, start, count, keys) : int_keys(values.list, start, count, keys)) == count;
}

inline bool read_key(void* value, bool string, int64_t* key) {
  *key = MISSING;
  if (!value || value == _Py_NoneStruct) return true;
  if (!is(value, string ? PyUnicode_Type : PyLong_Type) || is_truth(value)) return false;
  if (!string) {
    *key = PyLong_AsLongLong(value);
    return *key != -1 || !PyErr_Occurred();
  }
  intptr_t bytes = 0;
  const char* text = PyUnicode_AsUTF8AndSize(value, &bytes);
  if (!text) return false;
  Hasher hasher{key, {}, {}, 0};
  hasher.add(text, bytes);
  hasher.flush();
  return true;
}

inline bool read_number(void* value, const rk_field& field, float* number) {
  if (!value || !(is(value, PyFloat_Type) || is(value, PyLong_Type))) return false;
  const float raw = static_cast<float>(PyFloat_AsDouble(value));
  *number = (raw - field.mean) / field.std;
  return std::fabs(*number) <= RK_LARGEST && !PyErr_Occurred();  // of NaN and of what is infinite this is false
}

inline bool read_vector(void* value, const rk_field& field, float* numbers) {
  if (!value || !is(value, PyList_Type) || PyList_Size(value) != field.length) return false;
  for (int i = 0; i < field.length; i++)
    if (!read_number(PyList_GetItem(value, i), field, numbers + i)) return false;
  return true;
}

// Everything that a call holds on to; `close` lets go of it.
struct Call {
  Values candidates, bags[RK_BAGS];
  int64_t bag_ends[RK_BAGS];
  void* values[RK_FIELDS];  // own references: an odd id's own code could take a value out of the request
  int64_t* keys;  // of the request, of its bags, of the candidates
  float* numbers;

  void close() {
    candidates.close();
    for (Values& bag : bags) bag.close();
    for (void* value : values)
      if (value) Py_DecRef(value);
    free(keys);
    free(numbers);
    PyErr_Clear();
  }
};

// Finds the fields' values, and how much room they need; false where there is anything else in the request.
inline bool find_values(const rk_entry& entry, void* request, void* array, Call& call) {
  int64_t known = 0, bag = 0, end = 0;
  for (int i = 0; i < entry.fields; i++) {
    const rk_field& field = entry.field[i];
    void* value = call.values[i] = PyDict_GetItemWithError(request, field.name);
    if (value) Py_IncRef(value), known++;
    if (field.kind != RK_INTS && field.kind != RK_STRINGS) continue;
    Values& values = call.bags[bag];
    if (value && value != _Py_NoneStruct && !open_values(value, array, values)) return false;
    end += field.length && values.count > field.length ? field.length : values.count;
    call.bag_ends[bag++] = end;
  }
  return known == PyDict_Size(request);
}

inline bool read_request(const rk_entry& entry, Call& call) {
  const rk_model& model = *entry.model;
  int64_t key = 0, bag = 0, number = 0;
  bool right = true;
  for (int i = 0; right && i < entry.fields; i++) {
    const rk_field& field = entry.field[i];
    void* value = call.values[i];
    if (field.kind == RK_INT || field.kind == RK_STRING) {
      right = read_key(value, field.kind == RK_STRING, call.keys + key++);
    } else if (field.kind == RK_NUMBER) {
      right = read_number(value, field, call.numbers + number++);
    } else if (field.kind == RK_VECTOR) {
      right = read_vector(value, field, call.numbers + number);
      number += field.length;
    } else {
      const int64_t start = bag ? call.bag_ends[bag - 1] : 0;
      right = read_keys(call.bags[bag], field.kind == RK_STRINGS, call.bag_ends[bag] - start,
                        call.keys + model.keys + start);
      bag++;
    }
  }
  return right;
}

inline int score(const rk_entry& entry, void* request, void* candidates, const rk_view& out, int probable,
                 int64_t* misses, Call& call) {
  void* array = out.owner;
  if (!find_values(entry, request, array, call) || !open_values(candidates, array, call.candidates)) return RK_UNUSUAL;
  const int64_t count = call.candidates.count;
  if (out.bytes != count * static_cast<int64_t>(sizeof(float))) return RK_UNUSUAL;
  const rk_model& model = *entry.model;
  const int64_t bags = model.bags ? call.bag_ends[model.bags - 1] : 0;
  const int64_t listed = call.candidates.list ? count : 0;
  call.keys = static_cast<int64_t*>(malloc(sizeof(int64_t) * static_cast<size_t>(model.keys + bags + listed + 1)));
  call.numbers = static_cast<float*>(malloc(sizeof(float) * static_cast<size_t>(model.numbers + 1)));
  if (!call.keys || !call.numbers) return RK_NO_MEMORY;
  const int64_t* items = call.candidates.ints();
  if (!read_request(entry, call)) return RK_UNUSUAL;
  if (!items || entry.strings) {
    if (!read_keys(call.candidates, entry.strings, count, call.keys + model.keys + bags)) return RK_UNUSUAL;
    items = call.keys + model.keys + bags;
  }
  // Handing the interpreter over costs another thread's wake-up, far more than a short request takes.
  void* state = count < RK_SHORT ? nullptr : PyEval_SaveThread();
  const int failed = RK_FOR_ISA(rk_score)(&model, 1, call.keys, call.bag_ends, &count, call.keys + model.keys,
                                          call.numbers, items, nullptr, nullptr, probable, static_cast<float*>(out.data), misses);
  if (state) PyEval_RestoreThread(state);
  return failed ? RK_NO_MEMORY : RK_DONE;
}

// Whether any lookup used a fallback row.
inline int missed(const rk_view& misses) {
  const int64_t *at = static_cast<const int64_t*>(misses.data), *end = at + misses.bytes / 8;
  for (; at < end; at++)
    if (*at) return RK_MISSED;
  return RK_DONE;
}

inline int score_into(const rk_entry& entry, void* const* given, const rk_view& out, const rk_view& misses) {
  const int64_t terms = entry.model->request_terms + entry.model->candidate_terms;
  if (misses.bytes < 8 * terms) return RK_UNUSUAL;
  Call call{};
  const int result = score(entry, given[0], given[1], out, given[3] == _Py_TrueStruct, static_cast<int64_t*>(misses.data), call);
  call.close();
  return result == RK_DONE ? missed(misses) : result;
}

inline int direct(const rk_entry& entry, void* const* given) {
  rk_view out{}, misses{};
  if (PyObject_GetBuffer(given[2], &out, VIEW_WRITABLE | VIEW_CONTIGUOUS)) return RK_UNUSUAL;
  int result = RK_UNUSUAL;
  if (!PyObject_GetBuffer(given[4], &misses, VIEW_WRITABLE | VIEW_CONTIGUOUS)) {
    result = score_into(entry, given, out, misses);
    PyBuffer_Release(&misses);
  }
  PyBuffer_Release(&out);
  return result;
}

// (request, candidates, out, probable, misses) -> RK_DONE, RK_MISSED, RK_NO_MEMORY, or RK_UNUSUAL where something is not of
// the types known here; no exception is left behind. request: a dict. out: lends float32 [candidates]. probable: a bool.
// misses: lends int64 [terms], zero at first.
void* call_direct(void* self, void* const* given, intptr_t count) {
  const rk_entry* entry = static_cast<const rk_entry*>(PyLong_AsVoidPtr(self));
  const bool known = count == 5 && entry && entry->fields <= RK_FIELDS && entry->model->bags <= RK_BAGS;
  const int result = known ? direct(*entry, given) : RK_UNUSUAL;
  PyErr_Clear();
  return PyLong_FromLong(result);
}

rk_method METHOD{"score", call_direct, METHOD_FAST, nullptr};

}  // namespace

// A new reference to `call_direct` of an entry, whose address the Python int `address` holds; null where the interpreter
// hides its functions. The entry must outlive it.
RK_EXPORT void* RK_FOR_ISA(rk_direct)(void* address) {
  return python_is_there() ? PyCFunction_NewEx(&METHOD, address, nullptr) : nullptr;
}
