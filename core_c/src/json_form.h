/* The JSON encoder's forms: the same text by different vector units, of which a
 * machine takes the fastest that it has. Each is a file of its own, compiled from
 * the same headers. */
#ifndef OTUS_JSON_FORM_H
#define OTUS_JSON_FORM_H

#include <stdint.h>

#include "otus/encode.h"

struct otus_encoder;

enum {
    /* Octets that are kept free behind the `end` of a form's room. */
    JSON_SLACK = 512,
};

/* Each writes at `at` and returns the place behind; `end` or more where there was
 * too little room. */
struct json_form {
    const char *name;
    uint8_t *(*record)(uint8_t *at, uint8_t *end, const struct otus_encoder *encoder,
                       const struct otus_encode_input *input);
    uint8_t *(*payload)(uint8_t *at, uint8_t *end, const struct otus_encode_input *input);
    uint8_t *(*string)(uint8_t *at, uint8_t *end, struct otus_slice text);
};

extern const struct json_form json_form_portable;
extern const struct json_form json_form_baseline; /* what every machine of its kind runs */

/* NULL where this machine can't run it. */
const struct json_form *json_form_avx2(void);
const struct json_form *json_form_avx512(void);
/* The fastest that this machine runs. */
const struct json_form *json_form_best(void);

enum {
    JSON_TAKES_SIX = 0x81, /* u and four digits behind the backslash; no letter's change */
};

/* Operands of the AVX2 and the AVX-512 form. */
struct json_vectors {
    /* By octet: 0 where it stays as it is; otherwise the top bit and what makes it, by exclusive
     * or, the letter behind a backslash, or JSON_TAKES_SIX. */
    _Alignas(64) uint8_t escaped[128];
    uint8_t allowed[32]; /* 0x20, the lowest octet that stays as it is */
    uint8_t quote[32];
    uint8_t backslash[32];
};
__attribute__((visibility("hidden"))) extern const struct json_vectors json_vectors;

/* Writes what the octets at *from become and moves both on; at most 6 octets. For
 * what is no UTF-8: one U+FFFD for each maximal subpart. */
uint8_t *json_escape_one(uint8_t *at, const uint8_t **from, const uint8_t *stop);

#endif
