// What Python hands to the kernel; recsys_kd/runtime/abi.py mirrors every struct, field by field.
//
// Nothing here is owned by the kernel. It trusts lengths and pointers (Python makes them from arrays it holds), and
// no value that lies in a table or comes with a request: rows, buckets and codes are checked before they are used.
#pragma once
#include <cstdint>

#define RK_ABI 5
#define RK_EXPORT extern "C" __attribute__((visibility("default")))
#define RK_JOIN_(a, b) a##_##b
#define RK_JOIN(a, b) RK_JOIN_(a, b)
#define RK_FOR_ISA(name) RK_JOIN(name, RK_NAME)  // rk_score_avx2: one function per instruction set

extern "C" {

// recsys_kd/index.py: `top` of the `kept` bits choose a bucket, `width` bytes hold the others of each key.
struct rk_index {
  int64_t base, count, buckets;
  int32_t bits, kept, top, width;
  const uint8_t* starts;  // uint32 [buckets + 1], maybe unaligned: it lies in a mapped file
  const uint8_t* rests;   // uint8 [count, width]
};

// recsys_kd/tables.py, CodedRows: codes, then a float16 scale, in every row. Row index.count is the fallback.
struct rk_table {
  const uint8_t* data;
  int64_t rows;
  int32_t dim, bits;
  rk_index index;
  // RefinedRows: `more_rows` [rows], 1, 2 or 4 bytes each, names the row of table `more` that is added; null: none is.
  // Candidates have a term RK_CODES for it instead.
  const uint8_t* more_rows;
  int32_t more, more_bytes;
};

enum rk_source : int32_t {
  RK_KEY = 0,      // a looked-up row: of the request, or of each candidate
  RK_BAG = 1,      // the mean of looked-up rows (request only)
  RK_NUMBERS = 2,  // numbers as they are
  RK_ITEM = 3,     // the row of the candidate's item
  RK_CODES = 4,    // the row that `codes` names for the candidate's item
};

// z [dim] adds mean + z @ matrix to (h, S, s), and, where `square` is set, -|its part of S|^2 / 2 to s.
// Candidate terms have no matrix of their own: theirs are stacked in rk_model.matrix.
struct rk_term {
  int32_t source, slot, table, dim, square, code_bytes;
  const uint8_t* codes;  // [item rows], 1, 2 or 4 bytes each, maybe unaligned
  const float* matrix;   // [dim, first + width + 1]
  const float* mean;     // [first + width + 1]
  // Candidate terms of coded rows may have h's part in whole numbers: codes * grid, as in rk_layer. [(dim + 1) / 2, first]
  const uint32_t* pairs;
  const float* grid;  // [first]
};

// y = relu(bias + x @ weight), the last layer's without relu. Where `pairs` is set, weight [in, out] = codes * scale, and
// x is read in steps of its largest number / 32767, candidate by candidate (native/layers.h).
struct rk_layer {
  int32_t in, out;
  const float* weight;    // [in, out]
  const float* bias;      // [out]
  const uint32_t* pairs;  // [(in + 1) / 2, out]: codes of two inputs, the even one low, 16 bits each
  const float* scale;     // [out]
};

struct rk_model {
  int32_t first, width;
  int32_t tables, request_terms, candidate_terms, layers;
  int32_t keys, bags, numbers;  // of a request: looked-up fields, bags, and numbers in all
  int32_t inputs, squares;      // of a candidate: numbers over all its terms, and squared sums
  int32_t whole;                // candidate terms that have pairs: the first ones
  int32_t rotated;              // the first of the squares: S, turned so that it needs no more sums than inputs
  const rk_table* table;
  const rk_term* request_term;
  const rk_term* candidate_term;
  const rk_layer* layer;   // the last has one output, the logit's deep part
  const float* base;       // [first + width + 1]: every constant
  const float* rotation;   // [width, rotated], orthonormal columns; null where S is not turned
  const float* matrix;     // [inputs, first + squares + 1]
  const float* constant;   // [squares - rotated]: means of the sums that only candidates have
  const float* weight;     // [squares]: what each square counts, 1/2 or -1/2
  float slope, offset;     // calibration of the logit
};

// Keys of `requests` requests one after another, with N candidates in all.
struct rk_batch {
  int64_t requests;
  const int64_t* keys;        // [requests, keys]
  const int64_t* bag_ends;    // [requests, bags]: where each ends in bag_values
  const int64_t* bag_values;
  const int64_t* ends;        // [requests]: where each ends among the candidates
  const float* numbers;       // [requests, numbers]
  const int64_t* items;       // [N]
  const int64_t* const* candidate_keys;   // per slot [N]
  const float* const* candidate_numbers;  // per slot [N, dim]
};

enum rk_kind : int32_t { RK_INT = 0, RK_STRING = 1, RK_INTS = 2, RK_STRINGS = 3, RK_NUMBER = 4, RK_VECTOR = 5 };

// The largest number a model reads, standardized; recsys_kd/runtime/values.py, LARGEST, says why.
constexpr float RK_LARGEST = 1e9f;

// A field of raw requests. `length`: ids of a bag that count, the last ones (0: all), or numbers of a vector.
struct rk_field {
  void* name;  // a Python string
  int32_t kind, length;
  float mean, std;
};

// How raw requests are read: looked-up fields, then bags, then numbers, each in the model's order.
struct rk_entry {
  const rk_model* model;
  const rk_field* field;
  int32_t fields, strings;  // whether candidates' ids are strings
};

enum { RK_DONE = 0, RK_NO_MEMORY = 1, RK_UNUSUAL = 2, RK_MISSED = 3 };  // missed: done, with fallback rows
enum { RK_FIELDS = 64, RK_BAGS = 16 };  // more than these are unusual
enum { RK_SHORT = 256 };  // candidates below which a call keeps the interpreter: they take some 10 us

}  // extern "C"
