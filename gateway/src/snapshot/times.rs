//! The time limits of one route, each decided once.
//!
//! | limit | from the first that sets it |
//! |---|---|
//! | connect, first byte, upstream body idle, upstream write | route `timeouts`, service `timeouts`, the service's `*_timeout`, section `timeouts` |
//! | all others | route `timeouts`, service `timeouts`, section `timeouts` |

use std::time::Duration;

use portcullis_config::{Config, OwnTimeouts, Route, Timeouts};

/// The time limits of an exchange on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Between two reads of the request body.
    pub request_body_idle: Duration,
    /// Connecting to a target.
    pub connect: Duration,
    /// Until the response begins.
    pub first_byte: Duration,
    /// Between two reads of the response body.
    pub upstream_body_idle: Duration,
    /// Between two writes of the request.
    pub upstream_write: Duration,
    /// Between two writes of the response.
    pub response_write: Duration,
    /// From the head of the request to the end of the response, if that has a limit.
    pub total: Option<Duration>,
    /// Silence of a tunnel.
    pub tunnel_idle: Duration,
}

impl Times {
    /// Those of `route`.
    pub(super) fn of(route: &Route, config: &Config) -> Times {
        let service = route.service.map(|service| &config[service]);
        let own = [Some(&route.timeouts), service.map(|service| &service.timeouts)];
        let pick = |get: fn(&OwnTimeouts) -> Option<Duration>| own.into_iter().flatten().find_map(get);
        let general: &Timeouts = &config.timeouts;
        // A service's own keys have their defaults filled in already.
        let upstream = |of_service: fn(&portcullis_config::Service) -> Duration, default| {
            service.map_or(default, of_service)
        };
        Times {
            request_body_idle: pick(|own| own.request_body_idle).unwrap_or(general.request_body_idle),
            connect: pick(|own| own.connect).unwrap_or(upstream(|s| s.connect_timeout, general.connect)),
            first_byte: pick(|own| own.first_byte)
                .unwrap_or(upstream(|s| s.first_byte_timeout, general.first_byte)),
            upstream_body_idle: pick(|own| own.upstream_body_idle)
                .unwrap_or(upstream(|s| s.body_idle_timeout, general.upstream_body_idle)),
            upstream_write: pick(|own| own.upstream_write)
                .unwrap_or(upstream(|s| s.write_timeout, general.upstream_write)),
            response_write: pick(|own| own.response_write).unwrap_or(general.response_write),
            total: pick(|own| own.total).map_or(general.total, |total| Some(total).filter(|t| !t.is_zero())),
            tunnel_idle: pick(|own| own.tunnel_idle).unwrap_or(general.tunnel_idle),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_config::{EmptyCatalog, load_str};

    #[test]
    fn a_route_counts_before_its_service_and_that_before_everybody() {
        let config = load_str(
            "times.yaml",
            "timeouts: {first_byte: 1s, connect: 1s, response_write: 1s, total: 1s, upstream_write: 1s}\n\
             services:\n  - name: s\n    url: http://127.0.0.1:1\n    connect_timeout: 2000\n    \
             read_timeout: 2000\n    timeouts: {first_byte: 3s, total: 3s}\n    routes:\n      \
             - {name: plain, paths: [/a]}\n      - name: own\n        paths: [/b]\n        \
             timeouts: {first_byte: 4s, total: 0s, connect: 4s, request_body_idle: 4s, tunnel_idle: 4s}\n\
             routes:\n  - {name: alone, paths: [/c]}\n",
            &EmptyCatalog,
        )
        .expect("a configuration");
        let config = config.config;
        let times = |name: &str| {
            let route = config.routes.iter().find(|route| route.name == name).expect("a route");
            Times::of(route, &config)
        };
        let seconds = Duration::from_secs;
        let (plain, own, alone) = (times("plain"), times("own"), times("alone"));
        assert_eq!(
            (plain.connect, plain.first_byte, plain.total),
            (seconds(2), seconds(3), Some(seconds(3)))
        );
        assert_eq!((plain.upstream_body_idle, plain.upstream_write), (seconds(2), seconds(1)));
        assert_eq!((own.connect, own.first_byte, own.total), (seconds(4), seconds(4), None));
        assert_eq!((own.request_body_idle, own.tunnel_idle), (seconds(4), seconds(4)));
        assert_eq!((own.response_write, own.upstream_body_idle), (seconds(1), seconds(2)));
        assert_eq!((alone.first_byte, alone.total), (seconds(1), Some(seconds(1))));
        assert_eq!(alone.request_body_idle, seconds(30), "the default");
    }
}
