"""vLLM's Prometheus metrics, by its names."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cotune_simulation.vllm.startup import StartedEngine

_LABELS = ("engine", "model_name")
_SECONDS = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
)


class EngineMetrics:
    """What `/metrics` shows."""

    def __init__(self, model_name: str, engine: StartedEngine, gpu_memory_utilization: float) -> None:
        self._registry = CollectorRegistry()
        values = ("0", model_name)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, _LABELS, registry=self._registry).labels(*values)

        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(name, text, (*_LABELS, *more), registry=self._registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(name, text, _LABELS, buckets=_SECONDS, registry=self._registry).labels(*values)

        self.running = gauge("vllm:num_requests_running", "Number of requests in model execution batches.")
        self.waiting = gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.")
        self.kv_cache_usage = gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
        self.preemptions = counter("vllm:num_preemptions", "Cumulative number of preemption from the engine.").labels(
            *values
        )
        self.prompt_tokens = counter("vllm:prompt_tokens", "Number of prefill tokens processed.").labels(*values)
        self.generation_tokens = counter("vllm:generation_tokens", "Number of generation tokens processed.").labels(
            *values
        )
        self._success = counter("vllm:request_success", "Count of successfully processed requests.", "finished_reason")
        self._labels = values
        self.first_token = histogram("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.")
        self.between_tokens = histogram(
            "vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds."
        )
        self.latency = histogram("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.")
        cache = Gauge(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig",
            ("block_size", "engine", "gpu_memory_utilization", "num_gpu_blocks"),
            registry=self._registry,
        )
        cache.labels(str(engine.sizes.block_size), "0", str(gpu_memory_utilization), str(engine.blocks)).set(1)

    def succeeded(self, reason: str) -> None:
        """A request ended well, for `stop` or `length`."""
        self._success.labels(*self._labels, reason).inc()

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)
