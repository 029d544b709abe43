/* What the simulated card says about itself: one flat JSON object per reading, from its daemon's Unix socket. */
#ifndef COTUNE_SIMULATION_CARD_H
#define COTUNE_SIMULATION_CARD_H

#include <stddef.h>

enum card_result { CARD_READ, CARD_ABSENT, CARD_LOST };

/* One reading; `text` is NUL-terminated JSON, to be freed with card_free. */
struct card_reading {
    char *text;
};

/* CARD_ABSENT: nothing listens on the socket. CARD_LOST: the daemon ended or did not answer. */
enum card_result card_read(struct card_reading *reading);
void card_free(struct card_reading *reading);

/* The whole number under `key`; 0 without such a key. */
unsigned long long card_number(const struct card_reading *reading, const char *key);

/* Copies the string under `key`, cut and NUL-terminated; returns its full length. */
size_t card_text(const struct card_reading *reading, const char *key, char *into, size_t size);

/* Copies at most `size` numbers of the list under `key`; returns how many the list has. */
size_t card_list(const struct card_reading *reading, const char *key, unsigned long long *into, size_t size);

#endif
