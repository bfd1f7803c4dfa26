use proptest::prelude::*;
use serde_json::json;

use super::*;

fn version(text: &str) -> ContextVersion {
    text.parse().expect("a version that a test gives is one")
}

fn name(text: &str) -> FieldName {
    text.parse().expect("a name that a test gives is one")
}

fn spec() -> ContextSpec {
    let required = |kind| FieldSpec::of(kind);
    let optional = |kind| FieldSpec { optional: true, ..FieldSpec::of(kind) };
    let size = FieldSpec { default: Some(json!(0)), ..FieldSpec::of(FieldType::Int) };
    let fields = [
        ("file_path", required(FieldType::Str)),
        ("file_content", optional(FieldType::Bytes)),
        ("job_type", optional(FieldType::Str)),
        ("size", size),
        ("anything", optional(FieldType::Any)),
    ];
    ContextSpec {
        version: version("1.0"),
        fields: fields.into_iter().map(|(field, spec)| (name(field), spec)).collect(),
        shard_key: Some(name("file_path")),
        shards: ContextSpec::SHARDS,
        migrations: vec![
            Migration {
                from: version("0.8"),
                to: version("0.9"),
                rename: [(name("a"), name("b")), (name("b"), name("a"))].into_iter().collect(),
                set: Map::new(),
                remove: Vec::new(),
            },
            Migration {
                from: version("0.9"),
                to: version("1.0"),
                rename: [(name("path"), name("file_path"))].into_iter().collect(),
                set: json!({"job_type": "upload"}).as_object().cloned().expect("a mapping"),
                remove: vec![name("old")],
            },
        ],
    }
}

#[track_caller]
fn check(given: Value, expected: Result<Value, &str>) {
    let read = Context::from_json(&spec(), given).map(|context| context.to_json_without_bytes());
    assert_eq!(read.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
}

#[test]
fn defaults_are_filled_in_and_null_is_not_given() {
    check(json!({"file_path": "a"}), Ok(json!({"file_path": "a", "size": 0})));
    check(
        json!({"size": 7.0, "job_type": null, "file_path": "a", "anything": null}),
        Ok(json!({"file_path": "a", "size": 7, "anything": null})),
    );
}

#[test]
fn all_that_is_wrong_is_told_at_once_and_no_value_with_it() {
    check(
        json!({"size": "secret", "file_content": 1, "job_typ": "x"}),
        Err("the context does not fit: `file_path` is missing; \
             `file_content` must be bytes: a text, or `{\"base64\": …}`, not a whole number; \
             `size` must be a whole number of 64 bits, not text; `job_typ` is not a field of this context"),
    );
    check(json!([1]), Err("a context must be a mapping, not a list"));
    let near = Context::from_json(&spec(), json!({"file_path": "a", "job_typ": 1}));
    let problem = FieldProblem::Unknown { near: Some("job_type".to_owned()) };
    assert_eq!(near, Err(ContextError::Fields(vec![FieldError { field: "job_typ".to_owned(), problem }])));
}

#[test]
fn bytes_are_a_text_or_base64_or_beside_the_json() {
    let bytes = |given: Value| {
        let context = Context::from_json(&spec(), json!({"file_path": "a", "file_content": given}))?;
        Ok(context.get("file_content").and_then(Field::as_bytes).map(<[u8]>::to_vec))
    };
    assert_eq!(bytes(json!("é")), Ok(Some("é".as_bytes().to_vec())));
    assert_eq!(bytes(json!({"base64": "AP8="})), Ok(Some(vec![0, 255])));
    let refused = |problem| Err(ContextError::Fields(vec![FieldError { field: "file_content".to_owned(), problem }]));
    assert_eq!(bytes(json!({"base64": "?"})), refused(FieldProblem::NotBase64));
    let other = FieldProblem::WrongType { wanted: FieldType::Bytes, found: "a mapping" };
    assert_eq!(bytes(json!({"base64": "AP8=", "more": 1})), refused(other));

    let fields = json!({"file_path": "a"}).as_object().cloned().expect("a mapping");
    let beside = BTreeMap::from([("file_content".to_owned(), vec![7_u8].into())]);
    let context = Context::from_parts(&spec(), fields, beside).expect("it fits");
    assert_eq!(context.get("file_content").and_then(Field::as_bytes), Some(&[7][..]));
    assert_eq!(context.to_json_without_bytes(), json!({"file_path": "a", "size": 0}));
}

#[test]
fn what_is_set_later_must_be_of_its_type() {
    let spec = spec();
    let mut context = Context::from_json(&spec, json!({"file_path": "a", "job_type": "x"})).expect("it fits");
    let refused = context.set(&spec, "size", json!("x").into()).map_err(|error| error.to_string());
    assert_eq!(refused, Err("`size` must be a whole number of 64 bits, not text".to_owned()));
    assert_eq!(context.set(&spec, "size", json!(3.0).into()), Ok(()));
    assert_eq!(context.set(&spec, "job_type", Value::Null.into()), Ok(()));
    assert_eq!(context.set(&spec, "etag", json!("of a stage").into()), Ok(()));
    assert_eq!(context.to_json_without_bytes(), json!({"file_path": "a", "size": 3, "etag": "of a stage"}));
    let needed = FieldError { field: "file_path".to_owned(), problem: FieldProblem::Needed };
    assert_eq!(context.remove(&spec, "file_path"), Err(needed));
    assert_eq!(context.remove(&spec, "etag"), Ok(Some(json!("of a stage").into())));
}

#[test]
fn an_older_context_goes_through_the_chain() {
    let spec = spec();
    let migrate = |from: &str, fields: Value| {
        let fields = fields.as_object().cloned().unwrap_or_default();
        let stored = Context::stored(version(from), fields.into_iter().map(|(name, value)| (name, value.into())));
        let migrated = stored.migrate(&spec).map_err(|error| error.to_string())?;
        assert_eq!(migrated.version().as_str(), "1.0");
        Ok(migrated.to_json_without_bytes())
    };
    assert_eq!(
        migrate("0.8", json!({"path": "p", "old": 1, "a": 1, "b": 2})),
        Ok(json!({"file_path": "p", "job_type": "upload", "size": 0, "b": 1, "a": 2}))
    );
    assert_eq!(
        migrate("1.0", json!({"file_path": "p", "kept": 1})),
        Ok(json!({"file_path": "p", "size": 0, "kept": 1}))
    );
    assert_eq!(
        migrate("0.7", json!({"file_path": "p"})),
        Err("the context has version `0.7`: this pipeline has `1.0`, and migrations lead there from `0.8`, `0.9`"
            .to_owned())
    );
    assert_eq!(migrate("0.9", json!({})), Err("the context does not fit: `file_path` is missing".to_owned()));
}

#[test]
fn a_circle_of_migrations_leads_nowhere() {
    let mut spec = spec();
    spec.migrations[1].to = version("0.8");
    let stored = Context::stored(version("0.8"), []);
    assert!(matches!(stored.migrate(&spec), Err(ContextError::UnknownVersion(_))));
}

/// From the reference implementation (https://github.com/Cyan4973/xxHash, by way of Python's `xxhash`), modulo 1024. They
/// must never change: jobs of one key would be in two shards.
#[test]
fn shards_are_the_same_everywhere_and_for_ever() {
    let shards = ContextSpec::SHARDS;
    for (key, shard) in GOLDEN {
        assert_eq!(shard_of(key, shards), shard, "{key}");
    }
    let spec = ContextSpec { shard_key: Some(name("anything")), ..spec() };
    let shard = |value: Value| {
        let context = Context::from_json(&spec, json!({"file_path": "a", "anything": value})).expect("it fits");
        context.shard(&spec)
    };
    assert_eq!(shard(json!("uploads/a.txt")), Some(shard_of("uploads/a.txt", shards)));
    assert_eq!(shard(json!(42)), Some(shard_of("42", shards)));
    assert_eq!(
        shard(json!({"b": [1, {"d": 1, "c": 2}], "a": null})),
        Some(shard_of(r#"{"a":null,"b":[1,{"c":2,"d":1}]}"#, shards))
    );
    assert_eq!(Context::from_json(&spec, json!({"file_path": "a"})).expect("it fits").shard(&spec), None);
}

const GOLDEN: [(&str, u32); 5] = [("", 194), ("a", 543), ("uploads/a.txt", 868), ("42", 401), ("é", 179)];

proptest! {
    #[test]
    fn a_shard_is_one_of_them(key in ".{0,300}", shards in 1_u32..2000) {
        let shards = NonZeroU32::new(shards).expect("from 1 on");
        prop_assert!(shard_of(&key, shards) < shards.get());
    }
}
