//! How long requests took, by method, route and status.

use super::histogram::Histogram;
use axum::extract::MatchedPath;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Metric;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ptr;
use std::sync::OnceLock;
use std::time::Duration;

/// In milliseconds, as OpenTelemetry's conventions advise for requests.
const BUCKETS: [u32; 14] = [5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10_000];

/// How many series have a place where they are found without their labels being hashed: more than there are, by far.
const PLACES: usize = 512;

/// How many places are looked at for a series.
const LOOKS: usize = 4;

type Series = Family<RequestLabels, Histogram, fn() -> Histogram>;

/// A histogram for each method, route and status.
#[derive(Debug)]
pub(super) struct Requests {
    series: Series,
    /// Series of the family, from the place of their labels on.
    places: Box<[OnceLock<(RequestLabels, Histogram)>]>,
}

impl Requests {
    pub(super) fn new() -> Self {
        let series = Family::new_with_constructor((|| Histogram::new(&BUCKETS)) as fn() -> Histogram);
        Self { series, places: (0..PLACES).map(|_| OnceLock::new()).collect() }
    }

    /// All of them, for a registry.
    pub(super) fn metric(&self) -> impl Metric + use<> {
        self.series.clone()
    }

    /// Counts a request.
    pub(super) fn observe(&self, method: &'static str, route: Option<MatchedPath>, status: u16, took: Duration) {
        let labels =
            RequestLabels { http_request_method: method, http_route: Route(route), http_response_status_code: status };
        let first = labels.place();
        for place in first..first + LOOKS {
            let place = &self.places[place % PLACES];
            let (known, histogram) = place.get_or_init(|| (labels.clone(), self.series.get_or_create_owned(&labels)));
            if known.is_same(&labels) {
                return histogram.observe(took);
            }
        }
        self.series.get_or_create(&labels).observe(took);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[allow(clippy::struct_field_names, reason = "the labels of OpenTelemetry's conventions")]
struct RequestLabels {
    http_request_method: &'static str,
    http_route: Route,
    http_response_status_code: u16,
}

impl RequestLabels {
    /// Where the series is looked for first: by where its texts lie, which is the same for all requests of a route.
    fn place(&self) -> usize {
        let route = self.http_route.name().as_ptr().addr() >> 4;
        let method = self.http_request_method.as_ptr().addr();
        route ^ (route >> 9) ^ (method << 3) ^ usize::from(self.http_response_status_code)
    }

    /// Whether it is surely the same. Texts of the same letters in different places count as different.
    fn is_same(&self, other: &Self) -> bool {
        ptr::eq(self.http_route.name(), other.http_route.name())
            && ptr::eq(self.http_request_method, other.http_request_method)
            && self.http_response_status_code == other.http_response_status_code
    }
}

/// The template of a request's route; `None` where no route fits.
#[derive(Debug, Clone)]
struct Route(Option<MatchedPath>);

impl Route {
    fn name(&self) -> &str {
        self.0.as_ref().map_or("unmatched", MatchedPath::as_str)
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Route {}

impl Hash for Route {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.name().encode(encoder)
    }
}
