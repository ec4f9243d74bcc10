/* The JSON encoder for processors with AVX2: 32 octets a step. */
#include "encoder.h"
#include "processor.h"

#if OTUS_PROCESSOR_X86_64

#include <immintrin.h>

/* For all that follows, so that it can be inlined; headers above keep their own. */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,bmi")
#endif

#define JSON_AVX2 1
#include "json_record.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

static const struct json_form form = {"avx2", put_record, put_payload, put_string};

const struct json_form *json_form_avx2(void)
{
    return otus_has_avx2() ? &form : NULL;
}

#else

const struct json_form *json_form_avx2(void)
{
    return NULL;
}

#endif
