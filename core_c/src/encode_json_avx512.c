/* The JSON encoder for processors with AVX-512: 64 octets a step. */
#include "encoder.h"
#include "processor.h"

#if OTUS_PROCESSOR_X86_64

#include <immintrin.h>

/* For all that follows, so that it can be inlined; headers above keep their own. */
#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi,bmi2,popcnt"))),   \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi,bmi2,popcnt")
#endif

#define JSON_AVX512 1
#include "json_record.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

static const struct json_form form = {"avx512", put_record, put_payload, put_string};

const struct json_form *json_form_avx512(void)
{
    return otus_has_avx512() ? &form : NULL;
}

#else

const struct json_form *json_form_avx512(void)
{
    return NULL;
}

#endif
