//! One multiplexed connection that is replaced when it breaks or falls silent.
//!
//! redis-rs has a connection manager, but that keeps a connection on which nothing arrives any more, and grows its pause
//! while a killed Redis is long back.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, ServerErrorKind};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::RedisError;
use super::request::{Deadline, Request, Wire};

/// After a failed attempt to connect everybody is refused for so long, so that a crowd does not queue up behind attempts.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    state: Mutex<State>,
}

struct State {
    connection: Option<MultiplexedConnection>,
    /// Which connection this is; whoever saw an older one break has no say over it.
    generation: u64,
    /// No attempt to connect before this.
    pause_until: Option<Instant>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("connected", &self.connection.is_some()).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(client: Client) -> Self {
        Self { client, state: Mutex::new(State { connection: None, generation: 0, pause_until: None }) }
    }

    /// Runs one exchange, connecting first where that is needed, all within the deadline.
    pub(super) async fn send<T: FromRedisValue>(
        &self,
        request: Request<'_>,
        wire: fn(MultiplexedConnection) -> Wire,
        deadline: Deadline,
    ) -> Result<T, RedisError> {
        let (connection, generation) = deadline.keep(self.connection(deadline.length)).await??;
        match deadline.keep(request.through(&mut wire(connection))).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if is_at_an_end(&error) {
                    self.forget(generation).await;
                }
                Err(error.into())
            }
            // A connection on which nothing arrives may be dead without knowing it. Others in flight keep it alive.
            Err(late) => {
                self.forget(generation).await;
                Err(late)
            }
        }
    }

    async fn connection(&self, deadline: Duration) -> Result<(MultiplexedConnection, u64), RedisError> {
        let state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((connection.clone(), state.generation));
        }
        if state.pause_until.is_some_and(|until| Instant::now() < until) {
            return Err(RedisError::Away);
        }
        let mut attempt = Attempt(state);
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(deadline)).set_response_timeout(None);
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let Attempt(state) = &mut attempt;
        state.generation += 1;
        state.connection = Some(connection.clone());
        Ok((connection, state.generation))
    }

    async fn forget(&self, generation: u64) {
        let mut state = self.state.lock().await;
        if state.generation == generation {
            state.connection = None;
        }
    }
}

/// An attempt to connect. However it ends without a connection, refused, late, or given up by its caller, the pause begins
/// then.
struct Attempt<'a>(MutexGuard<'a, State>);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let Self(state) = self;
        state.pause_until = state.connection.is_none().then(|| Instant::now() + PAUSE);
    }
}

/// Whether another connection may do better: this one broke, or leads to a server that was master before a failover.
pub(super) fn is_at_an_end(error: &redis::RedisError) -> bool {
    error.is_unrecoverable_error()
        || error.is_io_error()
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}
