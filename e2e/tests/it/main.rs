//! Tests against real servers. Each one starts a stack of its own: run them with `cargo xtask test`.
// clippy.toml lets tests unwrap; the attribute tells clippy that helpers beside them are tests, too.

#[cfg(test)]
mod any_origin;
#[cfg(test)]
mod clocks;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod edge;
#[cfg(test)]
mod encrypted;
#[cfg(test)]
mod frozen;
#[cfg(test)]
mod gateway_alone;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod issuing;
#[cfg(test)]
mod listeners;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod mesh;
#[cfg(test)]
mod noisy;
#[cfg(test)]
mod observed;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod pushes;
#[cfg(test)]
mod redeeming;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod shared_data;
#[cfg(test)]
mod sick_origin;
#[cfg(test)]
mod support;
#[cfg(test)]
mod traps;
