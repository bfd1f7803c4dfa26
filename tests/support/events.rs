//! Events of simulations, of three sizes, in JetStream.

use prost::Message;
use serde_json::json;

use crate::nats::Nats;

/// `fes.common.events.GenericEventRequest`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(string, tag = "1")]
    event_id: String,
    #[prost(string, tag = "2")]
    event_type_key: String,
    #[prost(bytes = "vec", tag = "3")]
    event_payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    timestamp_ns: i64,
    #[prost(string, tag = "5")]
    source_worker_id: String,
    #[prost(string, tag = "6")]
    simulation_id: String,
}

/// The time of the first: 2026-11-05 23:50 UTC.
pub const BEGAN_NS: i64 = 1_793_922_600_000_000_000;
/// They are spread over twenty minutes, across midnight.
pub const SPAN_NS: i64 = 1_200_000_000_000;

fn event(number: i64, count: i64) -> Event {
    let kind = usize::try_from(number % 3).expect("small");
    Event {
        event_id: format!("e{number}"),
        event_type_key: "fish.moved".to_owned(),
        event_payload: vec![7; [64, 300, 1500][kind]],
        timestamp_ns: BEGAN_NS + number * (SPAN_NS / count),
        source_worker_id: format!("w{}", number % 4),
        simulation_id: ["sim-a", "../sim b", ""][kind].to_owned(),
    }
}

/// Makes the stream `LOGGING`, with so many events of the subject `logging.events.raw`; that of the number `poison` is none.
pub fn publish(nats: &mut Nats, count: i64, poison: Option<i64>) {
    let made = nats.ask("STREAM.CREATE.LOGGING", &json!({ "name": "LOGGING", "subjects": ["logging.events.*"] }));
    assert!(made.get("error").is_none(), "{made}");
    for number in 0..count {
        let is_poison = Some(number) == poison;
        let payload = if is_poison { b"\xff\xff".to_vec() } else { event(number, count).encode_to_vec() };
        let id = format!("e{number}");
        // What comes faster than it is stored, the server drops.
        match number % 500 == 499 || number + 1 == count {
            true => nats.publish_and_wait("logging.events.raw", &id, &payload),
            false => nats.publish("logging.events.raw", &id, &payload),
        }
    }
    let info = nats.ask("STREAM.INFO.LOGGING", &json!({}));
    assert_eq!((&info["state"]["messages"], &info["state"]["last_seq"]), (&count.into(), &count.into()));
}
