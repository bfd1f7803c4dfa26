//! The keys that a job has in the bucket.

use pype_plugin::prelude::*;
use pype_plugin::queue::Job;

use crate::name::token;

/// The job that was accepted with an idempotency key.
#[derive(Serialize, Deserialize)]
pub(super) struct Claim {
    pub(super) job: String,
    pub(super) asked: Option<String>,
}

pub(super) fn job_key(id: &str) -> Result<String> {
    Ok(format!("job.{}", token(id)?))
}

pub(super) fn payload_key(id: &str) -> Result<String> {
    Ok(format!("payload.{}", token(id)?))
}

pub(super) fn claim_key(pipeline: &str, key: &str) -> Result<String> {
    Ok(format!("key.{}.{}", token(pipeline)?, token(key)?))
}

pub(super) fn line(job: &Job) -> Result<String> {
    let shard = job.shard.map_or_else(|| "none".to_owned(), |shard| shard.to_string());
    Ok(format!("line.{}.{shard}", token(&job.pipeline)?))
}

pub(super) fn place_key(job: &Job) -> Result<String> {
    Ok(format!("{}.{}", line(job)?, token(&job.id)?))
}
