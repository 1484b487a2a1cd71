//! A histogram of durations that threads add to without a lock. The library's own has one, and sums floating-point numbers.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts durations by their length. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Histogram(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    /// In the order of their bounds.
    buckets: Box<[Bucket]>,
    /// Those that are longer than every bound.
    longer: AtomicU64,
    /// The sum of all, in nanoseconds: it is exact, and has room for centuries.
    sum: AtomicU64,
}

#[derive(Debug)]
struct Bucket {
    /// The longest duration in it, in milliseconds.
    bound: u32,
    count: AtomicU64,
}

impl Histogram {
    /// One with these bounds, in milliseconds and in order.
    pub(super) fn new(bounds: &[u32]) -> Self {
        let buckets = bounds.iter().map(|&bound| Bucket { bound, count: AtomicU64::new(0) }).collect();
        Self(Arc::new(Counts { buckets, longer: AtomicU64::new(0), sum: AtomicU64::new(0) }))
    }

    pub(super) fn observe(&self, took: Duration) {
        let Counts { buckets, longer, sum } = &*self.0;
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let mut count = longer;
        for bucket in buckets {
            if nanoseconds <= u64::from(bucket.bound) * 1_000_000 {
                count = &bucket.count;
                break;
            }
        }
        count.fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let of_bucket = |bucket: &Bucket| (f64::from(bucket.bound) / 1e3, bucket.count.load(Ordering::Relaxed));
        let mut buckets: Vec<(f64, u64)> = self.0.buckets.iter().map(of_bucket).collect();
        buckets.push((f64::INFINITY, self.0.longer.load(Ordering::Relaxed)));
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.0.sum.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use prometheus_client::encoding::prometheus_text;
    use prometheus_client::registry::Registry;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_is_no_shorter() {
        let histogram = Histogram::new(&[5, 10, 2500]);
        for microseconds in [0, 5000, 5001, 2_500_000, 2_500_001] {
            histogram.observe(Duration::from_micros(microseconds));
        }
        let mut registry = Registry::default();
        registry.register("took", "How long it took", histogram);
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("took")).collect();
        let expected = [
            "took_bucket{le=\"0.005\"} 2",
            "took_bucket{le=\"0.01\"} 3",
            "took_bucket{le=\"2.5\"} 4",
            "took_bucket{le=\"+Inf\"} 5",
            "took_sum 5.010002",
            "took_count 5",
        ];
        assert_eq!(lines, expected);
    }
}
