import com.sun.management.OperatingSystemMXBean;
import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.CommitMode;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.Deserializer;

/**
 * Confluent's Parallel Consumer as a peer of the streams benchmark. `../run --help` tells its arguments and what it prints.
 *
 * Its settings are its defaults, but for the ordering, the concurrency, and the second between commits that pype has.
 */
public final class Confluent {
    /** A value, and when it came out of a poll. */
    private record Polled(byte[] value, long nanos) {}

    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0], topic = arguments[1], group = arguments[2];
        int records = Integer.parseInt(arguments[3]);
        var ordering = ProcessingOrder.valueOf(arguments[4]);
        int concurrency = Integer.parseInt(arguments[5]);
        long work = Long.parseLong(arguments[6]) * 1_000;

        var consumer = new KafkaConsumer<>(
                Map.<String, Object>of(
                        "bootstrap.servers", bootstrap,
                        "group.id", group,
                        "auto.offset.reset", "earliest",
                        "enable.auto.commit", "false"),
                new ByteArrayDeserializer(),
                // It runs inside of `poll`.
                (Deserializer<Polled>) (of, value) -> new Polled(value, System.nanoTime()));
        var processor = ParallelStreamProcessor.createEosStreamProcessor(
                ParallelConsumerOptions.<byte[], Polled>builder()
                        .consumer(consumer)
                        .ordering(ordering)
                        .maxConcurrency(concurrency)
                        .commitMode(CommitMode.PERIODIC_CONSUMER_ASYNCHRONOUS)
                        .commitInterval(Duration.ofSeconds(1))
                        .build());
        processor.subscribe(List.of(topic));

        var first = new AtomicLong();
        var cpuBefore = new AtomicLong();
        var done = new AtomicInteger();
        var finished = new CountDownLatch(records);
        long[] latencies = new long[records];
        long[] last = new long[2];
        processor.poll(context -> {
            if (first.get() == 0 && first.compareAndSet(0, System.nanoTime())) {
                cpuBefore.set(cpu());
            }
            pause(work);
            long now = System.nanoTime();
            int number = done.getAndIncrement();
            if (number == records - 1) {
                last[0] = now;
                last[1] = cpu();
            }
            if (number < records) {
                latencies[number] = now - context.value().nanos();
                finished.countDown();
            }
        });
        finished.await();

        double seconds = (last[0] - first.get()) / 1e9;
        Arrays.sort(latencies);
        System.out.printf(
                Locale.ROOT,
                "{\"records\": %d, \"seconds\": %.3f, \"records_per_s\": %.0f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, "
                        + "\"cpu_s\": %.2f, \"peak_rss_mb\": %d}%n",
                records, seconds, records / seconds, latencies[records / 2] / 1e6, latencies[(int) (records * 0.99)] / 1e6,
                (last[1] - cpuBefore.get()) / 1e9, peakMegabytes());
        processor.closeDontDrainFirst();
    }

    /** Waits at least this long, which is no work for a processor. */
    private static void pause(long nanos) {
        long end = System.nanoTime() + nanos;
        for (long left = nanos; left > 0; left = end - System.nanoTime()) {
            LockSupport.parkNanos(left);
        }
    }

    private static long cpu() {
        return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    }

    private static long peakMegabytes() throws Exception {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                return Long.parseLong(line.replaceAll("\\D", "")) / 1024;
            }
        }
        throw new IllegalStateException("/proc/self/status has no VmHWM");
    }
}
