//! What is sent to a server, and how: as it is, or announced to a node that is just taking over the slot.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, FromRedisValue, Pipeline, RedisFuture, RedisResult, ScriptInvocation, Value};
use tokio::time::Instant;

use super::RedisError;

/// One exchange with one server.
#[derive(Debug, Clone, Copy)]
pub(super) enum Request<'a> {
    Script(&'a ScriptInvocation<'a>),
    Command(&'a Cmd),
    /// Always atomic: in a cluster, only `MULTI` carries an `ASKING` to every command of a pipeline.
    Transaction(&'a Pipeline),
}

impl Request<'_> {
    pub(super) async fn through<T: FromRedisValue>(self, wire: &mut Wire) -> RedisResult<T> {
        match self {
            Self::Script(invocation) => invocation.invoke_async(wire).await,
            Self::Command(command) => command.query_async(wire).await,
            Self::Transaction(pipeline) => pipeline.query_async(wire).await,
        }
    }
}

/// A connection, and how requests go through it.
pub(super) enum Wire {
    /// As they are.
    Plain(MultiplexedConnection),
    /// Each behind an `ASKING`, in one write, so that nobody else's request comes between the two.
    Asking(MultiplexedConnection),
}

impl ConnectionLike for Wire {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Plain(connection) => connection.req_packed_command(command),
            Self::Asking(connection) => Box::pin(async move {
                let mut announced = redis::pipe();
                announced.cmd("ASKING").add_command(command.clone());
                let mut replies = connection.req_packed_commands(&announced, 1, 1).await?;
                replies.pop().unwrap_or(Value::Nil).extract_error()
            }),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Plain(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Asking(connection) => Box::pin(async move {
                let mut announced = redis::pipe();
                announced.cmd("ASKING").cmd("MULTI");
                for command in pipeline.cmd_iter() {
                    announced.add_command(command.clone());
                }
                announced.cmd("EXEC");
                let replies = connection.req_packed_commands(&announced, offset + 1, count).await?;
                replies.into_iter().map(Value::extract_error).collect()
            }),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Plain(connection) | Self::Asking(connection) => connection.get_db(),
        }
    }
}

/// How long an exchange may take, connecting and redirections included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    pub(super) length: Duration,
    until: Instant,
}

impl Deadline {
    pub(super) fn after(length: Duration) -> Self {
        Self { length, until: Instant::now() + length }
    }

    pub(super) async fn keep<T>(self, work: impl Future<Output = T>) -> Result<T, RedisError> {
        tokio::time::timeout_at(self.until, work).await.map_err(|_| RedisError::Late(self.length.as_millis()))
    }
}
