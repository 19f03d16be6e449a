//! What packfed is measured against: dense FedAvg and LoRA FedAvg, on the same task, data order,
//! cohorts and local optimizer.

pub mod dense;
pub mod fedavg;
pub mod linear;
pub mod lora;
pub mod perceptron;
pub mod tuned;
