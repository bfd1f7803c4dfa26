//! Chains in a service's own code: closures as stages, around whatever context it has.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use pype_plugin::Result;

/// A chain of closures around a context.
///
/// ```
/// use pype::pipeline::Chained;
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
/// # runtime.block_on(async {
/// let greeted = Chained::from_context("Ann".to_owned())
///     .chain(|name: String, rest| async move { rest.run(name.to_uppercase()).await })
///     .chain(|name, rest| async move {
///         let greeting: String = rest.run(name).await?;
///         Ok(greeting + "!")
///     })
///     .run(|name| async move { Ok(format!("hello, {name}")) })
///     .await;
/// assert_eq!(greeted, Ok("hello, ANN!".to_owned()));
/// # });
/// ```
pub struct Chained<C, T> {
    context: C,
    stages: Vec<Stage<C, T>>,
}

type Going<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;
type Stage<C, T> = Arc<dyn Fn(C, Rest<C, T>) -> Going<T> + Send + Sync>;
type Core<C, T> = Arc<dyn Fn(C) -> Going<T> + Send + Sync>;

/// The rest of a chain. Running it ends it; a stage that does not run it ends the chain with what it returns itself.
pub struct Rest<C, T> {
    stages: Arc<[Stage<C, T>]>,
    at: usize,
    core: Core<C, T>,
}

impl<C: Send + 'static, T: Send + 'static> Chained<C, T> {
    /// A chain without stages yet.
    pub fn from_context(context: C) -> Self {
        Self { context, stages: Vec::new() }
    }

    /// One stage more, behind those that there are.
    #[must_use]
    pub fn chain<F, R>(mut self, stage: F) -> Self
    where
        F: Fn(C, Rest<C, T>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<T>> + Send + 'static,
    {
        self.stages.push(Arc::new(move |context, rest| Box::pin(stage(context, rest))));
        self
    }

    /// Runs the stages from top to bottom, and `core` last.
    ///
    /// # Errors
    /// What a stage or `core` says.
    pub async fn run<F, R>(self, core: F) -> Result<T>
    where
        F: Fn(C) -> R + Send + Sync + 'static,
        R: Future<Output = Result<T>> + Send + 'static,
    {
        let core: Core<C, T> = Arc::new(move |context| Box::pin(core(context)));
        Rest { stages: self.stages.into(), at: 0, core }.run(self.context).await
    }
}

impl<C: Send + 'static, T: Send + 'static> Rest<C, T> {
    /// Runs the rest, and gives its result.
    ///
    /// # Errors
    /// What a stage of it says.
    pub async fn run(self, context: C) -> Result<T> {
        let Self { stages, at, core } = self;
        match stages.get(at).cloned() {
            Some(stage) => stage(context, Rest { stages, at: at + 1, core }).await,
            None => core(context).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use pype_plugin::{Error, ErrorKind};

    use super::*;

    #[tokio::test]
    async fn a_stage_that_does_not_go_on_ends_the_chain() {
        let result = Chained::from_context(1)
            .chain(|n: i32, rest: Rest<i32, i32>| async move { if n > 0 { Ok(-1) } else { rest.run(n).await } })
            .chain(|_, _| async { Err(Error::new(ErrorKind::Internal, "reached", "it was reached")) })
            .run(|n| async move { Ok(n) })
            .await;
        assert_eq!(result, Ok(-1));
    }

    #[tokio::test]
    async fn stages_see_the_errors_of_those_behind_them() {
        let result = Chained::from_context(())
            .chain(|(), rest: Rest<(), String>| async move {
                Ok(rest.run(()).await.unwrap_or_else(|error| error.code.clone()))
            })
            .run(|()| async { Err(Error::new(ErrorKind::Io, "full", "the disk is full")) })
            .await;
        assert_eq!(result, Ok("full".to_owned()));
    }
}
