//! Where traces are sent, and how many: the variables that OpenTelemetry's specification names
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).

use super::env_reader::EnvReader;
use super::form::Form;
use axum::http::{HeaderName, HeaderValue, Uri};
use clap::ValueEnum;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use url::Url;

/// The most spans that wait. Their places are made at the start.
const QUEUE_MAX: u32 = 65_536;

/// The path below OTEL_EXPORTER_OTLP_ENDPOINT.
const PATH: &str = "/v1/traces";

const URL: &str = r"https?://[^\s/@?#][^\s@?#]*";
const HEADERS: &str = r"[^=,]+=[^,]+(,[^=,]+=[^,]+)*";
const ATTRIBUTES: &str = r"[^=,]+=[^,]*(,[^=,]+=[^,]*)*";
const RATIO: &str = r"[01]|0?\.[0-9]+|0\.[0-9]*|1\.0*";

/// Where spans go, and which.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// The address of the collector, to which spans are posted.
    pub collector: Url,
    /// Headers for it, with their values as the variable has them: percent-encoded.
    pub headers: Vec<(String, SecretString)>,
    /// How long it may take to accept some of them.
    pub timeout: Duration,
    /// The name of this service.
    pub service_name: String,
    /// What else tells this process from others.
    pub attributes: Vec<(String, String)>,
    /// Which requests are traced.
    pub sampler: Sampler,
    /// The share of them, from 0 to 1, where the sampler goes by one.
    pub ratio: f64,
    /// How long spans wait at most until they are sent.
    pub delay: Duration,
    /// How many spans wait at most; further ones are dropped.
    pub queue: u32,
    /// How many are sent at once.
    pub batch: u32,
}

/// Which requests are traced. Those that begin with `ParentBased` leave it to the trusted proxy where that has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sampler {
    /// All.
    #[value(name = "always_on")]
    AlwaysOn,
    /// None.
    #[value(name = "always_off")]
    AlwaysOff,
    /// A share.
    #[value(name = "traceidratio")]
    Ratio,
    /// All, unless the proxy has decided.
    #[value(name = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    /// None, unless the proxy has decided.
    #[value(name = "parentbased_always_off")]
    ParentBasedAlwaysOff,
    /// A share, unless the proxy has decided.
    #[value(name = "parentbased_traceidratio")]
    ParentBasedRatio,
}

/// How spans are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    #[value(name = "http/protobuf")]
    HttpProtobuf,
}

/// Where spans are sent by the specification's OTEL_TRACES_EXPORTER: to the collector, or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Exporter {
    Otlp,
    None,
}

impl EnvReader<'_> {
    /// Reads all of the variables, also where nothing is sent, so that every error is reported.
    pub(super) fn traces(&mut self) -> Option<TraceSettings> {
        let disabled = self.flag("OTEL_SDK_DISABLED", false);
        let exporter = self.choice("OTEL_TRACES_EXPORTER", Exporter::Otlp);
        let endpoint = self.collector("OTEL_EXPORTER_OTLP_ENDPOINT");
        let own = self.collector("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        // The path belongs to it.
        let below = |url: Url| Url::parse(&format!("{}{PATH}", url.as_str().trim_end_matches('/'))).ok();
        let collector = own.or_else(|| endpoint.and_then(below));
        for name in ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] {
            self.choice(name, Protocol::HttpProtobuf);
        }
        let headers = self.headers();
        let timeout = self.milliseconds("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000);
        let own_name = self.is_set("OTEL_SERVICE_NAME");
        let name = self.name("OTEL_SERVICE_NAME", "bulkhead");
        let attributes = self.attributes();
        let named = attributes.iter().find(|(key, _)| key == "service.name").filter(|_| !own_name);
        let service_name = named.map_or(name, |(_, name)| name.clone());
        let sampler = self.choice("OTEL_TRACES_SAMPLER", Sampler::ParentBasedAlwaysOn);
        let ratio = self.ratio();
        let delay = self.milliseconds("OTEL_BSP_SCHEDULE_DELAY", 5_000);
        let queue = self.within("OTEL_BSP_MAX_QUEUE_SIZE", 2_048, 1..=QUEUE_MAX);
        let batch = self.within("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1..=QUEUE_MAX);
        let collector = collector.filter(|_| !disabled && exporter == Exporter::Otlp)?;
        Some(TraceSettings {
            collector,
            headers,
            timeout,
            service_name,
            attributes,
            sampler,
            ratio,
            delay,
            queue,
            batch,
        })
    }

    fn milliseconds(&mut self, name: &'static str, default: u32) -> Duration {
        Duration::from_millis(self.at_least(name, default, 1).into())
    }

    /// A URL in which nothing is secret.
    fn collector(&mut self, name: &'static str) -> Option<Url> {
        let Some(text) = self.text(name) else {
            self.resolved(name, "(not set)".to_owned(), "default", Form::Like(URL));
            return None;
        };
        let url = Url::parse(&text).ok().filter(|url| is_collector(&text, url));
        // A text that is not such a URL may contain a password.
        self.resolved(name, if url.is_some() { text } else { "***".to_owned() }, "environment", Form::Like(URL));
        if url.is_none() {
            self.error(
                name,
                "must be a URL such as http://localhost:4318, with neither user, query nor fragment: what is secret belongs \
                 in OTEL_EXPORTER_OTLP_HEADERS",
            );
        }
        url
    }

    fn headers(&mut self) -> Vec<(String, SecretString)> {
        const NAME: &str = "OTEL_EXPORTER_OTLP_HEADERS";
        let Some(text) = self.secret(NAME, Some(HEADERS)) else { return Vec::new() };
        let headers = text.expose_secret().split(',').map(header).collect::<Option<Vec<_>>>();
        if headers.is_none() {
            self.error(NAME, "must be headers such as authorization=Bearer%20x, with commas between them");
        }
        headers.unwrap_or_default()
    }

    fn attributes(&mut self) -> Vec<(String, String)> {
        const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let Some(text) = self.optional(NAME, Form::Like(ATTRIBUTES)) else { return Vec::new() };
        let attributes = text.split(',').map(attribute).collect::<Option<Vec<_>>>();
        if attributes.is_none() {
            self.error(
                NAME,
                "must be attributes such as deployment.environment.name=staging, with commas between them, and values \
                 percent-encoded",
            );
        }
        attributes.unwrap_or_default()
    }

    fn ratio(&mut self) -> f64 {
        const NAME: &str = "OTEL_TRACES_SAMPLER_ARG";
        let ratio = self.value(NAME, 1.0, "a number from 0 to 1", Form::Like(RATIO));
        if !(0.0..=1.0).contains(&ratio) {
            self.error(NAME, &format!("must be 0 to 1, not {ratio}"));
        }
        ratio
    }
}

fn is_collector(text: &str, url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some_and(|host| !host.is_empty())
        && !text.contains(|c: char| c.is_whitespace() || matches!(c, '@' | '?' | '#'))
        // What the client takes.
        && url.as_str().parse::<Uri>().is_ok()
}

fn pair(text: &str) -> Option<(&str, &str)> {
    text.split_once('=').map(|(key, value)| (key.trim(), value.trim()))
}

/// Encoded as the specification of resources says (<https://opentelemetry.io/docs/specs/otel/resource/sdk/>).
fn attribute(text: &str) -> Option<(String, String)> {
    let (key, value) = pair(text).filter(|(key, _)| !key.is_empty())?;
    Some((key.to_owned(), percent_decode_str(value).decode_utf8().ok()?.into_owned()))
}

fn header(text: &str) -> Option<(String, SecretString)> {
    let (name, value) = pair(text)?;
    let name = name.parse::<HeaderName>().ok()?;
    let decoded = percent_decode_str(value).decode_utf8().ok().filter(|value| !value.is_empty())?;
    HeaderValue::from_str(&decoded).ok()?;
    Some((name.to_string(), value.to_owned().into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Settings;

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");

    fn read(pairs: &[(&str, &str)]) -> Result<Option<TraceSettings>, String> {
        let settings = Settings::read(&|name| {
            let named = pairs.iter().find(|(key, _)| *key == name);
            named.map(|(_, value)| (*value).into())
        });
        settings.0.map(|settings| settings.traces).map_err(|error| error.to_string())
    }

    fn traces(more: &[(&str, &str)]) -> TraceSettings {
        read(&[&[ENDPOINT], more].concat()).unwrap().unwrap()
    }

    #[test]
    fn an_endpoint_turns_traces_on() {
        assert!(read(&[]).unwrap().is_none());
        assert!(read(&[("OTEL_SERVICE_NAME", "x"), ("OTEL_TRACES_SAMPLER", "always_on")]).unwrap().is_none());
        assert!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]).unwrap().is_none());
        assert!(read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]).unwrap().is_none());
        assert!(read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "otlp")]).unwrap().is_some());
        assert_eq!(traces(&[]).collector.as_str(), "http://localhost:4318/v1/traces");
        let below = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otlp.example.org/team/")]).unwrap().unwrap();
        assert_eq!(below.collector.as_str(), "https://otlp.example.org/team/v1/traces");
        let own = traces(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4318/x")]);
        assert_eq!(own.collector.as_str(), "http://traces:4318/x", "taken as it is");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_its_variable() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://localhost"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hunter2@collector:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector/v1/traces?key=hunter2"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=hunter2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x=hunter2%0a"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x=hunter2,"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
            ("OTEL_RESOURCE_ATTRIBUTES", "region"),
            ("OTEL_RESOURCE_ATTRIBUTES", "=eu"),
            ("OTEL_RESOURCE_ATTRIBUTES", "region=%ff"),
            ("OTEL_SERVICE_NAME", " x"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.1"),
            ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
            ("OTEL_TRACES_SAMPLER_ARG", "half"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "65537"),
            ("OTEL_BSP_SCHEDULE_DELAY", "0"),
            ("OTEL_SDK_DISABLED", "yes"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("{name}: must be ")), "{value}: {error}");
            assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn headers_are_secret() {
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2, x-team = a");
        let traces = traces(&[headers]);
        let names: Vec<&str> = traces.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["authorization", "x-team"]);
        assert!(!format!("{traces:?}").contains("hunter2"));
        let (_, shown) = Settings::read(&|name| (name == headers.0).then(|| headers.1.into()));
        assert!(shown.iter().any(|variable| variable.name == headers.0 && variable.value == "***"));
    }

    #[test]
    fn the_service_has_a_name() {
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=api, zones=eu%2C%20us");
        assert_eq!(traces(&[]).service_name, "bulkhead");
        assert_eq!(traces(&[attributes]).service_name, "api");
        assert_eq!(traces(&[attributes, ("OTEL_SERVICE_NAME", "own")]).service_name, "own");
        assert_eq!(traces(&[attributes]).attributes[1], ("zones".to_owned(), "eu, us".to_owned()));
    }

    #[test]
    fn a_share_is_traced() {
        let share = traces(&[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.25")]);
        assert_eq!((share.sampler, share.ratio.to_string().as_str()), (Sampler::Ratio, "0.25"));
    }
}
