//! Operators: definitions of the shapes that real ones have, and a controller.

mod controller;
mod definitions;
