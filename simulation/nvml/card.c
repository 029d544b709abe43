#include "card.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/cotune-simulation/card.sock"
#define SECONDS_TO_ANSWER 2

static const char request[] = "{\"id\":1,\"op\":\"read\"}\n";

static int connected_socket(void)
{
    const char *path = getenv("COTUNE_SIMULATION_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = SECONDS_TO_ANSWER};
    int card;

    if (!path || !*path)
        path = DEFAULT_SOCKET;
    if (strlen(path) >= sizeof address.sun_path)
        return -1;
    strcpy(address.sun_path, path);
    card = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (card < 0)
        return -1;
    setsockopt(card, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(card, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(card, (struct sockaddr *)&address, sizeof address) != 0) {
        close(card);
        return -1;
    }
    return card;
}

/* A process that was stopped and goes on finds its call interrupted, because the socket has a time-out. */
static ssize_t received(int card, char *text, size_t room)
{
    ssize_t count;

    do
        count = recv(card, text, room, 0);
    while (count < 0 && errno == EINTR);
    return count;
}

/* Reads up to the first line's end; NULL if it does not come. */
static char *read_line(int card)
{
    size_t length = 0, room = 4096;
    char *text = malloc(room);

    while (text) {
        ssize_t count = received(card, text + length, room - length - 1);
        if (count <= 0)
            break;
        length += (size_t)count;
        text[length] = '\0';
        if (text[length - 1] == '\n')
            return text;
        if (room - length < 2) {
            char *larger = realloc(text, room *= 2);
            if (!larger)
                break;
            text = larger;
        }
    }
    free(text);
    return NULL;
}

enum card_result card_read(struct card_reading *reading)
{
    int card = connected_socket();

    if (card < 0)
        return CARD_ABSENT;
    reading->text = NULL;
    if (send(card, request, sizeof request - 1, MSG_NOSIGNAL) == (ssize_t)(sizeof request - 1))
        reading->text = read_line(card);
    close(card);
    return reading->text ? CARD_READ : CARD_LOST;
}

void card_free(struct card_reading *reading)
{
    free(reading->text);
    reading->text = NULL;
}

/* Where the value under `key` begins; NULL without such a key. */
static const char *value(const struct card_reading *reading, const char *key)
{
    char quoted[64];
    const char *found;

    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    found = strstr(reading->text, quoted);
    if (!found)
        return NULL;
    found += strlen(quoted);
    while (isspace((unsigned char)*found))
        found++;
    return found;
}

unsigned long long card_number(const struct card_reading *reading, const char *key)
{
    const char *begin = value(reading, key);

    return begin ? strtoull(begin, NULL, 10) : 0;
}

size_t card_text(const struct card_reading *reading, const char *key, char *into, size_t size)
{
    const char *begin = value(reading, key);
    size_t length = 0;

    if (begin && *begin == '"')
        length = strcspn(++begin, "\"\n");
    if (size > 0) {
        size_t copied = length < size ? length : size - 1;
        if (copied > 0)
            memcpy(into, begin, copied);
        into[copied] = '\0';
    }
    return length;
}

size_t card_list(const struct card_reading *reading, const char *key, unsigned long long *into, size_t size)
{
    const char *at = value(reading, key);
    size_t count = 0;

    if (!at || *at != '[')
        return 0;
    for (at++; *at && *at != ']';) {
        if (isdigit((unsigned char)*at)) {
            char *end;
            unsigned long long number = strtoull(at, &end, 10);
            if (count < size)
                into[count] = number;
            count++;
            at = end;
        } else {
            at++;
        }
    }
    return count;
}
