//! The context of one run, as plugins look into it.

use std::sync::Arc;

use pype_core::pipeline::context::{Context, Field as CoreField, FieldError};
use pype_core::pipeline::plan::Plan;
use pype_plugin::{Bytes, ContextStore, Error, ErrorKind, Field, Result, RunFacts};

/// The context of one run, and what is known of the run. A clone shares what the fields hold.
#[derive(Clone)]
pub struct RunContext {
    pub(super) plan: Arc<Plan>,
    /// The fields.
    pub context: Context,
    /// What is known of the run.
    pub facts: Arc<RunFacts>,
}

impl ContextStore for RunContext {
    fn facts(&self) -> RunFacts {
        self.facts.as_ref().clone()
    }

    fn names(&self) -> Vec<String> {
        self.context.fields().map(|(name, _)| name.to_owned()).collect()
    }

    fn get(&self, name: &str) -> Option<Field> {
        Some(match self.context.get(name)? {
            CoreField::Json(value) => Field::Json(value.as_ref().clone()),
            CoreField::Bytes(bytes) => Field::Bytes(Bytes::from_owner(bytes.clone())),
        })
    }

    fn set(&mut self, name: &str, field: Field) -> Result<()> {
        let field = match field {
            Field::Json(value) => value.into(),
            Field::Bytes(bytes) => CoreField::Bytes(bytes::Bytes::from_owner(bytes)),
        };
        self.context.set(self.plan.context(), name, field).map_err(unfit)
    }

    fn remove(&mut self, name: &str) -> bool {
        match self.context.remove(self.plan.context(), name) {
            Ok(taken) => taken.is_some(),
            Err(needed) => {
                tracing::warn!("a stage wanted to take out a field that is needed: {needed}");
                false
            }
        }
    }
}

fn unfit(error: FieldError) -> Error {
    Error::new(ErrorKind::Data, "unfit-field", error.to_string())
}
