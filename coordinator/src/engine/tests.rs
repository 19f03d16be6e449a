//! The engine, event by event: what it is told, and the whole list of what it then wants done.

mod anything;
mod buffered;
mod fleet;
mod orders;
mod pace;
mod rejections;
mod releases;
mod replicas;
mod reporting;
mod restart;
mod robust;
mod scales;
mod selection;
mod strikes;
