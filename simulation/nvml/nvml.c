/*
 * SIMULATION: libnvidia-ml.so.1 over cotune's simulated card. The functions that pynvml's users call, with NVML's
 * documented results: a machine has one card; without its daemon the driver counts as not loaded.
 */
#include "card.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define API __attribute__((visibility("default")))
#define MAXIMUM_PROCESSES 1024
#define MAXIMUM_SAMPLES 128

typedef int nvmlReturn_t;
typedef struct nvmlDevice_st *nvmlDevice_t;

enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_FUNCTION_NOT_FOUND = 13,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
};

#define NO_INSTANCE 0xFFFFFFFFu
#define MEMORY_V2 0x02000028u

typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
    unsigned int gpu, memory;
} nvmlUtilization_t;

typedef struct {
    unsigned int pid;
    unsigned long long usedGpuMemory;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

typedef struct {
    unsigned int pid;
    unsigned long long timeStamp;
    unsigned int smUtil, memUtil, encUtil, decUtil;
} nvmlProcessUtilizationSample_t;

typedef struct nvmlEventSet_st *nvmlEventSet_t;

typedef struct {
    nvmlDevice_t device;
    unsigned long long eventType, eventData;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlEventData_t;

typedef struct {
    unsigned int version, sensorType;
    int temperature;
} nvmlTemperature_t;

static atomic_int initialized;
static const int the_card;

static nvmlDevice_t card_handle(void) { return (nvmlDevice_t)&the_card; }

/* Reads the card on behalf of a function that needs the library; frees nothing unless it succeeds. */
static nvmlReturn_t read_card(struct card_reading *reading)
{
    if (atomic_load(&initialized) == 0)
        return NVML_ERROR_UNINITIALIZED;
    return card_read(reading) == CARD_READ ? NVML_SUCCESS : NVML_ERROR_GPU_IS_LOST;
}

/* The same for a function about a device. */
static nvmlReturn_t read_device(nvmlDevice_t device, const void *result, struct card_reading *reading)
{
    if (atomic_load(&initialized) == 0)
        return NVML_ERROR_UNINITIALIZED;
    if (device != card_handle() || !result)
        return NVML_ERROR_INVALID_ARGUMENT;
    return read_card(reading);
}

static nvmlReturn_t device_number(nvmlDevice_t device, const char *key, unsigned int *number)
{
    struct card_reading reading;
    nvmlReturn_t result = read_device(device, number, &reading);

    if (result != NVML_SUCCESS)
        return result;
    *number = (unsigned int)card_number(&reading, key);
    card_free(&reading);
    return NVML_SUCCESS;
}

static nvmlReturn_t text_of(nvmlReturn_t result, struct card_reading *reading, const char *key, char *text,
                            unsigned int length)
{
    size_t needed;

    if (result != NVML_SUCCESS)
        return result;
    needed = card_text(reading, key, text, length);
    card_free(reading);
    return needed < length ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

static nvmlReturn_t device_text(nvmlDevice_t device, const char *key, char *text, unsigned int length)
{
    struct card_reading reading;
    nvmlReturn_t result = read_device(device, text, &reading);

    return text_of(result, &reading, key, text, length);
}

/* --- the library --- */

API nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    struct card_reading reading;

    (void)flags;
    if (card_read(&reading) != CARD_READ)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    card_free(&reading);
    atomic_fetch_add(&initialized, 1);
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

API nvmlReturn_t nvmlInit(void) { return nvmlInitWithFlags(0); }

API nvmlReturn_t nvmlShutdown(void)
{
    int users = atomic_load(&initialized);

    do {
        if (users == 0)
            return NVML_ERROR_UNINITIALIZED;
    } while (!atomic_compare_exchange_weak(&initialized, &users, users - 1));
    return NVML_SUCCESS;
}

API const char *nvmlErrorString(nvmlReturn_t result)
{
    switch (result) {
    case NVML_SUCCESS: return "The operation was successful";
    case NVML_ERROR_UNINITIALIZED: return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT: return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED: return "Not Supported";
    case NVML_ERROR_NOT_FOUND: return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE: return "Insufficient Size";
    case NVML_ERROR_TIMEOUT: return "Timeout";
    case NVML_ERROR_DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case NVML_ERROR_FUNCTION_NOT_FOUND: return "Function Not Found";
    case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
    case NVML_ERROR_ARGUMENT_VERSION_MISMATCH: return "Argument version mismatch";
    default: return "Unknown Error";
    }
}

/* --- the system --- */

API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    struct card_reading reading;

    return version ? text_of(read_card(&reading), &reading, "driver_version", version, length)
                   : NVML_ERROR_INVALID_ARGUMENT;
}

API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    struct card_reading reading;
    char driver[64];
    int needed;
    nvmlReturn_t result = version ? read_card(&reading) : NVML_ERROR_INVALID_ARGUMENT;

    if (result != NVML_SUCCESS)
        return result;
    card_text(&reading, "driver_version", driver, sizeof driver);
    needed = snprintf(version, length, "%llu.%s", card_number(&reading, "cuda_version") / 1000, driver);
    card_free(&reading);
    return (unsigned int)needed < length ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    struct card_reading reading;
    nvmlReturn_t result = version ? read_card(&reading) : NVML_ERROR_INVALID_ARGUMENT;

    if (result != NVML_SUCCESS)
        return result;
    *version = (int)card_number(&reading, "cuda_version");
    card_free(&reading);
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }

API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    if (atomic_load(&initialized) == 0)
        return NVML_ERROR_UNINITIALIZED;
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = 1;
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetCount(unsigned int *count) { return nvmlDeviceGetCount_v2(count); }

API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    if (atomic_load(&initialized) == 0)
        return NVML_ERROR_UNINITIALIZED;
    if (index != 0 || !device)
        return NVML_ERROR_INVALID_ARGUMENT;
    *device = card_handle();
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    struct card_reading reading;
    char own[96];
    nvmlReturn_t result = uuid && device ? read_card(&reading) : NVML_ERROR_INVALID_ARGUMENT;

    if (result != NVML_SUCCESS)
        return result;
    card_text(&reading, "uuid", own, sizeof own);
    card_free(&reading);
    if (strcmp(uuid, own) != 0)
        return NVML_ERROR_NOT_FOUND;
    *device = card_handle();
    return NVML_SUCCESS;
}

/* --- the card --- */

API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    return device_text(device, "name", name, length);
}

API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    return device_text(device, "uuid", uuid, length);
}

API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
    if (atomic_load(&initialized) == 0)
        return NVML_ERROR_UNINITIALIZED;
    if (device != card_handle() || !index)
        return NVML_ERROR_INVALID_ARGUMENT;
    *index = 0;
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor)
{
    return nvmlDeviceGetIndex(device, minor);
}

API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    struct card_reading reading;
    nvmlReturn_t result = minor ? read_device(device, major, &reading) : NVML_ERROR_INVALID_ARGUMENT;

    if (result != NVML_SUCCESS)
        return result;
    *major = (int)card_number(&reading, "compute_major");
    *minor = (int)card_number(&reading, "compute_minor");
    card_free(&reading);
    return NVML_SUCCESS;
}

/* As the real one: what the driver keeps for itself counts as used. */
API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    struct card_reading reading;
    nvmlReturn_t result = read_device(device, memory, &reading);

    if (result != NVML_SUCCESS)
        return result;
    memory->total = card_number(&reading, "memory_total");
    memory->free = card_number(&reading, "memory_free");
    memory->used = memory->total - memory->free;
    card_free(&reading);
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    struct card_reading reading;
    nvmlReturn_t result = read_device(device, memory, &reading);

    if (result != NVML_SUCCESS)
        return result;
    if (memory->version == MEMORY_V2) {
        memory->total = card_number(&reading, "memory_total");
        memory->reserved = card_number(&reading, "memory_reserved");
        memory->free = card_number(&reading, "memory_free");
        memory->used = card_number(&reading, "memory_allocated");
    } else {
        result = NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    }
    card_free(&reading);
    return result;
}

API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    struct card_reading reading;
    nvmlReturn_t result = read_device(device, utilization, &reading);

    if (result != NVML_SUCCESS)
        return result;
    utilization->gpu = (unsigned int)card_number(&reading, "utilization_gpu");
    utilization->memory = (unsigned int)card_number(&reading, "utilization_memory");
    card_free(&reading);
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts)
{
    return device_number(device, "power", milliwatts);
}

API nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *milliwatts)
{
    return device_number(device, "power_limit", milliwatts);
}

API nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned int *milliwatts)
{
    return device_number(device, "power_limit", milliwatts);
}

API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned int sensor, unsigned int *celsius)
{
    return sensor == 0 ? device_number(device, "temperature", celsius) : NVML_ERROR_INVALID_ARGUMENT;
}

API nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
    unsigned int celsius = 0;
    nvmlReturn_t result = temperature ? nvmlDeviceGetTemperature(device, temperature->sensorType, &celsius)
                                      : NVML_ERROR_INVALID_ARGUMENT;

    if (result == NVML_SUCCESS)
        temperature->temperature = (int)celsius;
    return result;
}

API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned int type, unsigned int *megahertz)
{
    static const char *const keys[] = {"clock_graphics", "clock_sm", "clock_memory", "clock_video"};

    return type < sizeof keys / sizeof *keys ? device_number(device, keys[type], megahertz)
                                             : NVML_ERROR_INVALID_ARGUMENT;
}

/* The simulated card never lowers its clocks, so these are the same. */
API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned int type, unsigned int *megahertz)
{
    return nvmlDeviceGetClockInfo(device, type, megahertz);
}

/* P0 (the fastest) while something runs, P8 while nothing does. */
API nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, unsigned int *state)
{
    unsigned int percent = 0;
    nvmlReturn_t result = state ? device_number(device, "utilization_gpu", &percent) : NVML_ERROR_INVALID_ARGUMENT;

    if (result == NVML_SUCCESS)
        *state = percent > 0 ? 0 : 8;
    return result;
}

/* 1 says that the clocks are low because the card is idle; other bits are what the daemon was told to show. */
API nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons)
{
    unsigned int bits = 0;
    nvmlReturn_t result = reasons ? device_number(device, "clock_event_reasons", &bits) : NVML_ERROR_INVALID_ARGUMENT;

    if (result == NVML_SUCCESS)
        *reasons = bits;
    return result;
}

API nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons)
{
    return nvmlDeviceGetCurrentClocksEventReasons(device, reasons);
}

/* 0 is NVML_COMPUTEMODE_DEFAULT: any number of processes. */
API nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, unsigned int *mode)
{
    return nvmlDeviceGetIndex(device, mode);
}

API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending)
{
    (void)device, (void)current, (void)pending;
    return NVML_ERROR_NOT_SUPPORTED;
}

/* --- its errors --- */

#define MAXIMUM_XIDS 256
#define XID_CRITICAL_ERROR 0x8ULL
#define MILLISECONDS_BETWEEN_LOOKS 50

/* As the real one: a card without error-correcting memory has no such counters. */
static nvmlReturn_t memory_errors(nvmlDevice_t device, const void *result, unsigned long long *uncorrected)
{
    struct card_reading reading;
    nvmlReturn_t status = read_device(device, result, &reading);

    if (status != NVML_SUCCESS)
        return status;
    if (!card_number(&reading, "has_ecc"))
        status = NVML_ERROR_NOT_SUPPORTED;
    *uncorrected = card_number(&reading, "ecc_uncorrected");
    card_free(&reading);
    return status;
}

/* `type` 0 counts corrected errors, which do not happen here, 1 uncorrected ones. */
API nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned int type, unsigned int counter,
                                             unsigned long long *count)
{
    unsigned long long uncorrected;
    nvmlReturn_t result = memory_errors(device, count, &uncorrected);

    (void)counter;
    if (result == NVML_SUCCESS)
        *count = type == 1 ? uncorrected : 0;
    return result;
}

/* A row with an uncorrected error waits for a reset to be replaced. */
API nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrected, unsigned int *uncorrected,
                                           unsigned int *pending, unsigned int *failed)
{
    unsigned long long errors;
    nvmlReturn_t result = corrected && uncorrected && failed ? memory_errors(device, pending, &errors)
                                                             : NVML_ERROR_INVALID_ARGUMENT;

    if (result == NVML_SUCCESS) {
        *corrected = *uncorrected = *failed = 0;
        *pending = errors > 0;
    }
    return result;
}

/* What was told when a listener came is told to it no more. */
struct nvmlEventSet_st {
    size_t told;
    int registered;
};

static nvmlReturn_t read_xids(unsigned long long *xids, size_t *count)
{
    struct card_reading reading;
    nvmlReturn_t result = read_card(&reading);

    if (result != NVML_SUCCESS)
        return result;
    *count = card_list(&reading, "xids", xids, MAXIMUM_XIDS);
    card_free(&reading);
    if (*count > MAXIMUM_XIDS)
        *count = MAXIMUM_XIDS;
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types)
{
    unsigned int index;
    nvmlReturn_t result = types ? nvmlDeviceGetIndex(device, &index) : NVML_ERROR_INVALID_ARGUMENT;

    if (result == NVML_SUCCESS)
        *types = XID_CRITICAL_ERROR;
    return result;
}

API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    if (atomic_load(&initialized) == 0)
        return NVML_ERROR_UNINITIALIZED;
    if (!set)
        return NVML_ERROR_INVALID_ARGUMENT;
    *set = calloc(1, sizeof **set);
    return *set ? NVML_SUCCESS : NVML_ERROR_GPU_IS_LOST;
}

API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    free(set);
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set)
{
    unsigned long long xids[MAXIMUM_XIDS];
    nvmlReturn_t result;

    if (device != card_handle() || !set)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (types & ~XID_CRITICAL_ERROR)
        return NVML_ERROR_NOT_SUPPORTED;
    result = read_xids(xids, &set->told);
    set->registered = result == NVML_SUCCESS;
    return result;
}

API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *event, unsigned int milliseconds)
{
    const struct timespec between = {.tv_nsec = MILLISECONDS_BETWEEN_LOOKS * 1000000L};
    unsigned long long xids[MAXIMUM_XIDS];

    if (!set || !event)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned int waited = 0;; waited += MILLISECONDS_BETWEEN_LOOKS) {
        size_t count = 0;
        nvmlReturn_t result = read_xids(xids, &count);
        if (result != NVML_SUCCESS)
            return result;
        if (count < set->told)
            set->told = 0; /* another daemon has taken the card over */
        if (set->registered && count > set->told) {
            *event = (nvmlEventData_t){card_handle(), XID_CRITICAL_ERROR, xids[set->told++], NO_INSTANCE, NO_INSTANCE};
            return NVML_SUCCESS;
        }
        if (waited >= milliseconds)
            return NVML_ERROR_TIMEOUT;
        nanosleep(&between, NULL);
    }
}

API nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *event, unsigned int milliseconds)
{
    return nvmlEventSetWait_v2(set, event, milliseconds);
}

/* --- its processes --- */

static nvmlReturn_t listed_processes(nvmlDevice_t device, const char *of_pids, const char *of_bytes,
                                     unsigned int *count, nvmlProcessInfo_t *processes)
{
    unsigned long long pids[MAXIMUM_PROCESSES], bytes[MAXIMUM_PROCESSES];
    struct card_reading reading;
    size_t found;
    nvmlReturn_t result = read_device(device, count, &reading);

    if (result != NVML_SUCCESS)
        return result;
    found = card_list(&reading, of_pids, pids, MAXIMUM_PROCESSES);
    card_list(&reading, of_bytes, bytes, MAXIMUM_PROCESSES);
    card_free(&reading);
    if (found > MAXIMUM_PROCESSES)
        found = MAXIMUM_PROCESSES;
    if (found > *count || (found > 0 && !processes)) {
        *count = (unsigned int)found;
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    for (size_t index = 0; index < found; index++)
        processes[index] = (nvmlProcessInfo_t){(unsigned int)pids[index], bytes[index], NO_INSTANCE, NO_INSTANCE};
    *count = (unsigned int)found;
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                         nvmlProcessInfo_t *processes)
{
    return listed_processes(device, "process_pids", "process_bytes", count, processes);
}

API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *count,
                                                         nvmlProcessInfo_t *processes)
{
    return nvmlDeviceGetComputeRunningProcesses_v3(device, count, processes);
}

static nvmlReturn_t no_processes(nvmlDevice_t device, unsigned int *count)
{
    return nvmlDeviceGetIndex(device, count);
}

API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                          nvmlProcessInfo_t *processes)
{
    (void)processes;
    return no_processes(device, count);
}

API nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                            nvmlProcessInfo_t *processes)
{
    return listed_processes(device, "mps_pids", "mps_bytes", count, processes);
}

/* The name of a process that holds memory on the card. */
API nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
    char path[32];
    FILE *command;
    size_t size;

    if (atomic_load(&initialized) == 0)
        return NVML_ERROR_UNINITIALIZED;
    if (!name || length == 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    command = fopen(path, "re");
    if (!command)
        return NVML_ERROR_NOT_FOUND;
    size = fread(name, 1, length - 1, command);
    fclose(command);
    name[size] = '\0'; /* the first argument ends with a NUL of its own */
    return NVML_SUCCESS;
}

/* The newest sample of each process that is newer than `since` (microseconds since 1970). */
API nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *utilization,
                                                 unsigned int *count, unsigned long long since)
{
    unsigned long long times[MAXIMUM_SAMPLES], pids[MAXIMUM_SAMPLES], percents[MAXIMUM_SAMPLES];
    nvmlProcessUtilizationSample_t newest[MAXIMUM_SAMPLES];
    unsigned int processes = 0;
    struct card_reading reading;
    size_t samples;
    nvmlReturn_t result = read_device(device, count, &reading);

    if (result != NVML_SUCCESS)
        return result;
    samples = card_list(&reading, "sample_microseconds", times, MAXIMUM_SAMPLES);
    card_list(&reading, "sample_pids", pids, MAXIMUM_SAMPLES);
    card_list(&reading, "sample_percents", percents, MAXIMUM_SAMPLES);
    card_free(&reading);
    if (samples > MAXIMUM_SAMPLES)
        samples = MAXIMUM_SAMPLES;
    for (size_t sample = 0; sample < samples; sample++) {
        unsigned int process = 0;
        if (times[sample] <= since)
            continue;
        while (process < processes && newest[process].pid != pids[sample])
            process++;
        newest[process] = (nvmlProcessUtilizationSample_t){
            .pid = (unsigned int)pids[sample], .timeStamp = times[sample], .smUtil = (unsigned int)percents[sample]};
        if (process == processes)
            processes++;
    }
    if (processes == 0)
        return NVML_ERROR_NOT_FOUND;
    if (processes > *count || !utilization) {
        *count = processes;
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    memcpy(utilization, newest, processes * sizeof *newest);
    *count = processes;
    return NVML_SUCCESS;
}
