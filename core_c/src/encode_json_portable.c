/* The JSON encoder without vectors: what the other forms are tested against. */
#define JSON_PORTABLE 1
#include "json_record.h"

const struct json_form json_form_portable = {"portable", put_record, put_payload, put_string};
