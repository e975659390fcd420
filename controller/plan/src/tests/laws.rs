//! The laws of the planner, held against random histories: requests of people, outcomes and reports
//! of agents, time. `Lab` checks each plan and world on the way.
