//! `protobuf_decode`: Protobuf messages as columns, by their descriptor.
//!
//! A scalar field is a column of its Arrow type: `double` Float64, `float` Float32, `int32` and its kin Int32, `int64` Int64,
//! `uint32` UInt32, `uint64` UInt64, `bool` Boolean, `string` Utf8, `bytes` Binary. An enum is its value's name (or its number, if
//! the descriptor has no name for it), and a `google.protobuf.Timestamp` microseconds in UTC. Everything else (messages, maps,
//! repeated fields) is text: Protobuf's own JSON form, with the names of the `.proto` file. A field that knows whether it is
//! there (`optional`, in a `oneof`, a message) is null where it is not; any other has its default.

mod descriptor;
mod messages;

use std::path::PathBuf;
use std::sync::Arc;

use pype_plugin::prelude::*;
use pype_plugin::{Inputs, Outputs};

use self::messages::{Messages, Plan};
use crate::decoding;
use crate::keep::Keep;

/// Configs of `protobuf_decode`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The message's full name: `shop.orders.Order`.
    message: String,
    /// A file with a `FileDescriptorSet`, imports included: `protoc --include_imports --descriptor_set_out=…` makes one.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    descriptor: Option<String>,
    /// Instead, the `.proto` file with the message. No protoc is needed.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    proto: Option<String>,
    /// Folders that imports of the `.proto` file start at; its own folder if there is none.
    #[serde(default)]
    include: Vec<IncludePath>,
    /// Columns of the record that stay: `topic`, `partition`, `offset`, `timestamp`, `key`, `headers`.
    #[serde(default)]
    keep: Keep,
}

/// A folder.
#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
struct IncludePath(#[schemars(extend("format" = "path"))] String);

/// Values as messages of one type.
pub(crate) struct ProtobufDecode {
    plan: Arc<Plan>,
    keep: Keep,
}

impl Mod for ProtobufDecode {
    const NAME: &str = "protobuf_decode";
    const DESCRIPTION: &str =
        "Gives fields of Protobuf messages as columns; what is no such message leaves at `errors`.";
    const CATEGORY: &str = "Decode";
    const PACKAGES: &[&str] = &["prost-reflect", "protox"];
    const INPUTS: &[&str] = decoding::INPUTS;
    const OUTPUTS: &[&str] = decoding::OUTPUTS;
    type Config = Config;

    async fn open(config: Config, ctx: &Context) -> Result<Self> {
        let (keep, message) = (config.keep, config.message);
        let include: Vec<_> = config.include.into_iter().map(|folder| PathBuf::from(folder.0)).collect();
        let origin = descriptor::Origin::of(config.descriptor, config.proto, include)?;
        let plan = ctx.run_blocking(move || Ok(Plan::of(origin.message(&message)?))).await?;
        Ok(Self { keep: keep.checked(&plan.columns())?, plan: Arc::new(plan) })
    }

    async fn run(&mut self, inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        decoding::decode(inputs, Messages::of(self.plan.clone()), &self.keep, ctx).await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use arrow_array::cast::AsArray;
    use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType, UInt64Type};
    use prost::Message;
    use prost_reflect::{DescriptorPool, DynamicMessage};
    use pype_plugin::testing::module;
    use serde::de::DeserializeSeed;
    use serde_json::json;

    use super::*;
    use crate::testing::{Given, decoded};

    const ORDER: &str = r#"
        syntax = "proto3";
        package shop.orders;
        import "google/protobuf/timestamp.proto";
        import "parts/line.proto";
        enum State { NEW = 0; PAID = 1; }
        message Order {
            int64 id = 1;
            sint32 delta = 2;
            uint64 total = 3;
            string who = 4;
            bytes raw = 5;
            optional string note = 6;
            State state = 7;
            google.protobuf.Timestamp placed_at = 8;
            repeated Line order_lines = 9;
            map<string, int32> counts = 10;
            oneof payment { string card = 11; bool cash = 12; }
        }
    "#;
    const LINE: &str = r#"
        syntax = "proto3";
        package shop.orders;
        message Line { string line_name = 1; int64 price = 2; }
    "#;

    /// A folder with the two files, which goes with the value.
    fn protos() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("parts")).expect("a folder");
        fs::write(folder.path().join("order.proto"), ORDER).expect("written");
        fs::write(folder.path().join("parts/line.proto"), LINE).expect("written");
        folder
    }

    fn compiled(folder: &Path) -> Vec<u8> {
        let mut compiler = protox::Compiler::new([folder]).expect("a folder");
        compiler.include_imports(true).open_file("order.proto").expect("it compiles");
        compiler.encode_file_descriptor_set()
    }

    fn encoded(folder: &Path, json: &Value) -> Vec<u8> {
        let pool = DescriptorPool::decode(compiled(folder).as_slice()).expect("a descriptor");
        let message = pool.get_message_by_name("shop.orders.Order").expect("it is there");
        let message: DynamicMessage = message.deserialize(json).expect("of that type");
        message.encode_to_vec()
    }

    #[test]
    fn fields_become_columns_from_a_proto_file_and_from_a_descriptor() {
        let folder = protos();
        let full = json!({
            "id": "-5", "delta": -3, "total": "18446744073709551615", "who": "añ", "raw": "AP8=", "note": "", "state": "PAID",
            "placedAt": "2025-05-10T10:00:00.000001Z", "orderLines": [{"lineName": "x", "price": "7"}],
            "counts": {"a": 1}, "cash": false,
        });
        let unnamed = [encoded(folder.path(), &json!({})), vec![7 << 3, 9]].concat();
        let given = [Given::value(encoded(folder.path(), &full)), Given::value(unnamed), Given::value(b"\xff")];
        let descriptor = folder.path().join("order.bin");
        fs::write(&descriptor, compiled(folder.path())).expect("written");
        for origin in [json!({"proto": folder.path().join("order.proto")}), json!({"descriptor": descriptor})] {
            let mut config = json!({"message": "shop.orders.Order", "keep": ["offset"]});
            config.as_object_mut().expect("an object").extend(origin.as_object().expect("an object").clone());
            let done = decoded::<ProtobufDecode>(config, &given);
            assert_eq!(done.errors.len(), 1);
            assert!(done.errors[0].starts_with("2: "), "{:?}", done.errors);
            let names = ["id", "delta", "total", "who", "raw", "note", "state", "placed_at", "order_lines", "counts"];
            assert_eq!(done.names()[..10], names);
            assert_eq!(done.names()[10..], ["card", "cash", "offset"]);
            let column = |name| done.rows.column_by_name(name).expect(name);
            assert_eq!(column("id").as_primitive::<Int64Type>().values(), &[-5, 0]);
            assert_eq!(column("delta").as_primitive::<Int32Type>().values(), &[-3, 0]);
            assert_eq!(column("total").as_primitive::<UInt64Type>().values(), &[u64::MAX, 0]);
            assert_eq!(
                column("raw").as_binary::<i32>().iter().collect::<Vec<_>>(),
                [Some([0, 255].as_slice()), Some(b"")]
            );
            let text = |name| column(name).as_string::<i32>().iter().collect::<Vec<_>>();
            assert_eq!(text("who"), [Some("añ"), Some("")]);
            assert_eq!(text("note"), [Some(""), None]);
            assert_eq!(text("state"), [Some("PAID"), Some("9")]);
            assert_eq!(text("order_lines"), [Some(r#"[{"line_name":"x","price":"7"}]"#), Some("[]")]);
            assert_eq!(text("counts"), [Some(r#"{"a":1}"#), Some("{}")]);
            assert_eq!(text("card"), [None, None]);
            assert_eq!(column("cash").as_boolean().iter().collect::<Vec<_>>(), [Some(false), None]);
            let placed = column("placed_at").as_primitive::<TimestampMicrosecondType>();
            assert_eq!(placed.iter().collect::<Vec<_>>(), [Some(1_746_871_200_000_001), None]);
            assert!(!done.rows.schema().field(0).is_nullable() && done.rows.schema().field(5).is_nullable());
        }
    }

    #[test]
    fn what_is_missing_is_said_at_once() {
        let folder = protos();
        let proto = folder.path().join("order.proto");
        let check = |config: Value, code: &str, expect: &str| {
            let error = module::<ProtobufDecode>(config).run().result.expect_err("refused");
            assert_eq!(error.code, code, "{error}");
            assert!(error.to_string().contains(expect), "{error}");
        };
        let message = "shop.orders.Order";
        check(json!({"message": message}), "no-descriptor", "neither `descriptor` nor `proto`");
        let both = json!({"message": message, "proto": proto, "descriptor": proto});
        check(both, "no-descriptor", "both `descriptor` and `proto`");
        check(json!({"message": "shop.Order", "proto": proto}), "no-such-message", "no message `shop.Order`");
        check(json!({"message": message, "descriptor": proto}), "bad-descriptor", "holds no `FileDescriptorSet`");
        check(json!({"message": message, "proto": folder.path().join("x.proto")}), "bad-proto", "x.proto");
        fs::write(folder.path().join("parts/line.proto"), "message Line {").expect("written");
        check(json!({"message": message, "proto": proto}), "bad-proto", "order.proto");
    }
}
