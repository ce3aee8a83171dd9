from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

from kvstore.server.metrics import CONTENT_TYPE, CounterSnapshot, Metrics
from tests.unit.kvstore.server.http.fake import Store, request, run

SNAPSHOT = CounterSnapshot(
    messages={("Accept", "sent"): 7, ("Accepted", "received"): 6},
    reads={"lease": 5, "read_index": 4, "quorum": 3, "stale": 2},
    chosen=12,
    applied=11,
    leader_changes=1,
    is_leader=True,
    data_bytes=4096,
    queues={"inbox": 3},
    dropped_frames=8,
    dropped_log_lines=9,
)


def samples(text: str) -> dict[str, float]:
    def each() -> Iterator[tuple[str, float]]:
        for family in text_string_to_metric_families(text):
            assert family.name.startswith(("kvstore_", "process_"))
            assert family.documentation
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                yield f"{sample.name}{{{labels}}}", sample.value

    return dict(each())


def test_what_a_replica_counts_is_pulled_at_each_scrape() -> None:
    metrics = Metrics()
    seen = [SNAPSHOT]
    metrics.watch(lambda: seen[-1])
    found = samples(metrics.render().decode())
    assert found["kvstore_messages_total{direction=sent,kind=Accept}"] == 7
    assert found["kvstore_messages_total{direction=received,kind=Accepted}"] == 6
    for way, count in SNAPSHOT.reads.items():
        assert found[f"kvstore_reads_total{{method={way}}}"] == count
    assert found["kvstore_chosen_slots_total{}"] == 12
    assert found["kvstore_applied_slots_total{}"] == 11
    assert found["kvstore_leader_changes_total{}"] == 1
    assert found["kvstore_is_leader{}"] == 1
    assert found["kvstore_data_bytes{}"] == 4096
    assert found["process_resident_memory_bytes{}"] > 0
    assert found["kvstore_queue_depth{queue=inbox}"] == 3
    assert found["kvstore_link_dropped_messages_total{}"] == 8
    assert found["kvstore_log_dropped_lines_total{}"] == 9
    seen.append(
        CounterSnapshot(**{name: getattr(SNAPSHOT, name) for name in SNAPSHOT.__struct_fields__} | {"chosen": 13})
    )
    assert samples(metrics.render().decode())["kvstore_chosen_slots_total{}"] == 13


def test_batches_and_fsyncs_are_observed() -> None:
    metrics = Metrics()
    metrics.observe_batch(3)
    metrics.observe_batch(100)
    metrics.observe_fsync(0.0003)
    found = samples(metrics.render().decode())
    assert found["kvstore_batch_commands_sum{}"] == 103
    assert found["kvstore_batch_commands_bucket{le=4.0}"] == 1
    assert found["kvstore_fsync_seconds_count{}"] == 1
    assert found["kvstore_fsync_seconds_bucket{le=0.0005}"] == 1


def test_two_replicas_in_one_process_do_not_share_metrics() -> None:
    one, two = Metrics(), Metrics()
    one.observe_batch(1)
    assert samples(two.render().decode())["kvstore_batch_commands_count{}"] == 0


def test_requests_are_counted_by_method_route_and_status() -> None:
    async def scenario(store: Store) -> None:
        store.metrics.watch(lambda: SNAPSHOT)
        async with await store.wire() as wire:
            await wire.ask(request("PUT", "/kv/a", body=b"1"))
            await wire.ask(request("PUT", "/kv/a", body=b"1"))
            await wire.ask(request("PUT", "/kv/b", body=b"1"))
            await wire.ask(request("GET", "/kv/c"))
            await wire.ask(request("PATCH", "/nowhere/1"))
            await wire.ask(request("PATCH", "/nowhere/2"))
        async with await store.wire() as wire:
            await wire.ask(b"garbage\r\n\r\n")
        page = await store.call("GET", "/metrics")
        assert page.headers["content-type"] == CONTENT_TYPE
        found = samples(page.body.decode())
        count = "kvstore_http_requests_total{{method={},route={},status={}}}"
        assert found[count.format("PUT", "/kv/", 201)] == 2
        assert found[count.format("PUT", "/kv/", 200)] == 1
        assert found[count.format("GET", "/kv/", 404)] == 1
        assert found[count.format("other", "other", 404)] == 2
        assert found[count.format("other", "malformed", 400)] == 1
        assert found["kvstore_http_request_seconds_count{method=PUT,route=/kv/}"] == 3
        assert found["kvstore_http_requests_in_flight{}"] == 0

    run(scenario)
