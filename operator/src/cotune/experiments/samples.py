"""Whether the load can give what the decision rests on, which the arrivals say before anything runs."""

from cotune.api.experiment import ExperimentSpec
from cotune.measurement.arrivals import due_in_window, stream_seed
from cotune.trials.probe_pod import seed_of
from cotune.trials.truth import conditions_beside, is_slowdown, metrics_that_rest_on_answers


def too_few_requests(experiment: str, spec: ExperimentSpec) -> str | None:
    """Why every trial would be found to rest on too few answers; None: nothing speaks against it.

    A stream whose number of requests is not known beforehand is not judged.
    """
    workload, seed = spec.workload, seed_of(experiment)
    for metric in metrics_that_rest_on_answers(spec):
        component = metric.split(".", 1)[0]
        seconds = workload.duration_seconds
        if is_slowdown(metric) and workload.interference is not None:
            seconds = min(seconds, workload.interference.duration_seconds)
        conditions = conditions_beside(spec, metric)
        enough = workload.minimum_samples * conditions
        counts = [
            due_in_window(it.arrivals, seconds, stream_seed(seed, number), enough)
            for number, it in enumerate(workload.streams)
            if it.component == component
        ]
        known = [it for it in counts if it is not None]
        due = sum(known) // conditions
        if not counts or len(known) < len(counts) or due >= workload.minimum_samples:
            continue
        return (
            f"{metric} wants {workload.minimum_samples} samples (minimumSamples), and {due} requests are due "
            f"for {component} in a window of {seconds} s: give it a longer window or a higher rate"
        )
    return None
