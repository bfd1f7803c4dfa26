//! What comes back through a chain.

use std::fmt;

use serde_json::Value;

use crate::abi::{
    FutureExt, Handle, Json, RawReturned, RawValue, Task, ValueVtable, ValueVtableRef, WithMetadata, staticref,
};
use crate::error::Result;
use crate::frame::origin;
use crate::glue::contain_service;

/// What a stage or the rest of a chain has returned. The library that has made it takes the value out again, any other reads
/// it as JSON: so it goes through stages of one library as it is, and through the host unread.
pub struct Returned {
    raw: RawReturned,
}

impl Returned {
    #[inline]
    pub(crate) fn from_raw(raw: RawReturned) -> Self {
        Self { raw }
    }

    #[inline]
    pub(crate) fn into_raw(self) -> RawReturned {
        self.raw
    }

    /// The value.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn read(self) -> Result<Value> {
        match self.raw {
            RawReturned::Value(RawValue { handle, vtable }) if vtable.origin()() == origin() => {
                // SAFETY: this library made the handle, always of this type.
                Ok(unsafe { handle.into_inner::<Value>() })
            }
            raw => Ok(serde_json::from_slice(&json(raw))?),
        }
    }

    /// For another side that knows no [`RawReturned`].
    pub(crate) fn into_json(self) -> Json {
        json(self.raw)
    }
}

fn json(raw: RawReturned) -> Json {
    match raw {
        RawReturned::Json(json) => json,
        RawReturned::Value(RawValue { handle, vtable }) => vtable.json()(&handle),
    }
}

impl From<Value> for Returned {
    #[inline]
    fn from(value: Value) -> Self {
        Self { raw: RawReturned::Value(RawValue { handle: Handle::seated(value), vtable: ValueMethods::VTABLE }) }
    }
}

impl fmt::Debug for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Returned").finish_non_exhaustive()
    }
}

/// The call of another side that knows no [`RawReturned`], as of one that does.
pub(crate) fn returned(call: Task<Json>) -> Task<RawReturned> {
    match call {
        Task::Done(result) => Task::Done(result.map(RawReturned::Json)),
        Task::Later(call) => Task::Later(async { call.await.map(RawReturned::Json) }.into_ffi()),
    }
}

struct ValueMethods;

impl ValueMethods {
    staticref! {
        const METHODS: WithMetadata<ValueVtable> = WithMetadata::new(ValueVtable { origin: Self::origin, json: Self::json });
    }
    const VTABLE: ValueVtableRef = ValueVtableRef(Self::METHODS.as_prefix());

    extern "C" fn origin() -> usize {
        origin()
    }

    extern "C" fn json(handle: &Handle) -> Json {
        // SAFETY: only `Returned::from` pairs a handle with the vtable that calls this.
        let value = unsafe { handle.get::<Value>() };
        contain_service(|| crate::host::json(value)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::abi::RResult;
    use crate::context::done;
    use crate::testing::block_on;

    /// The values of another library.
    struct Foreign;

    impl Foreign {
        staticref! {
            const METHODS: WithMetadata<ValueVtable> =
                WithMetadata::new(ValueVtable { origin: Self::origin, json: Self::json });
        }

        extern "C" fn origin() -> usize {
            0
        }

        extern "C" fn json(handle: &Handle) -> Json {
            // SAFETY: the test below holds a text in it.
            unsafe { handle.get::<&str>() }.as_bytes().into()
        }
    }

    fn foreign(text: &'static str) -> Returned {
        let vtable = ValueVtableRef(Foreign::METHODS.as_prefix());
        Returned::from_raw(RawReturned::Value(RawValue { handle: Handle::new(text), vtable }))
    }

    #[test]
    fn a_value_of_the_same_library_is_taken_out_and_another_read() {
        let text = "a long text that is not copied".to_owned();
        let at = text.as_ptr();
        let Value::String(same) = Returned::from(Value::String(text)).read().expect("a value") else {
            panic!("a text stays a text")
        };
        assert_eq!(same.as_ptr(), at);
        assert_eq!(foreign("[1, 2]").read(), Ok(json!([1, 2])));
        assert_eq!(&foreign("[1, 2]").into_json()[..], b"[1, 2]");
        assert!(foreign("{").read().is_err());
        assert_eq!(&Returned::from(json!({"a": 1})).into_json()[..], b"{\"a\":1}");
    }

    #[test]
    fn what_a_side_returns_that_knows_nothing_but_json_is_read_too() {
        let read = |call| block_on(done(returned(call))).and_then(|raw| Returned::from_raw(raw).read());
        let result = || RResult::ROk(Json::from(b"true".as_slice()));
        assert_eq!(read(Task::Done(result())), Ok(json!(true)));
        assert_eq!(read(Task::Later(async move { result() }.into_ffi())), Ok(json!(true)));
    }
}
