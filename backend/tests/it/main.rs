//! Tests against a real Redis and a real PostgreSQL. Each has its own database and key prefix, and drops both.

// `cfg(test)` also tells clippy that helpers may unwrap.
#[cfg(test)]
mod audit;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod client;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod command;
#[cfg(test)]
mod conflicts;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod database;
#[cfg(test)]
mod door;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod events;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod idle;
#[cfg(test)]
mod installation;
#[cfg(test)]
mod issue;
#[cfg(test)]
mod listing;
#[cfg(test)]
mod losses;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod operating;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod operators;
#[cfg(test)]
mod pressure;
#[cfg(test)]
mod primaries;
#[cfg(test)]
mod process;
#[cfg(test)]
mod receiver;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod redeem;
#[cfg(test)]
mod restore;
#[cfg(test)]
mod rounds;
#[cfg(test)]
mod schemas;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod settle;
#[cfg(test)]
mod spans;
#[cfg(test)]
mod sync;
#[cfg(test)]
mod ticket;
#[cfg(test)]
mod unreadable;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod world;
