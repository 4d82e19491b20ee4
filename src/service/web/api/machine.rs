//! The machine in documents: all of it in `status`, and what concerns who sends updates in `/api/v1/update`.

use super::{Context, ROW_BYTES_MAX, fault, written};
use crate::http::{Json, Response, Status};
use crate::service::{MachineReport, UpdateFault, UpdateReport};

/// `/api/v1/update`.
pub fn update_document(context: &Context) -> Response {
    let Some(machine) = context.updates.machine() else {
        return fault(Status::NotImplemented, &UpdateFault::NotAnImage.to_string());
    };
    let mut json = Json::new(2 * ROW_BYTES_MAX);
    json.begin_object();
    system(&mut json, &machine);
    update(&mut json, &machine.update);
    notices(&mut json, &machine);
    json.end_object();
    written(json)
}

/// The member `machine` of the status: `null` for a broker that is no service of an image.
pub fn member(json: &mut Json, machine: Option<&MachineReport>) {
    json.name("machine");
    let Some(machine) = machine else { return json.value(None::<u64>) };
    json.begin_object();
    system(json, machine);
    json.field("data", said(&machine.data));
    json.field("network", said(&machine.network));
    json.field("clock", said(&machine.clock));
    update(json, &machine.update);
    notices(json, machine);
    json.end_object();
}

/// What a person must be told.
fn notices(json: &mut Json, machine: &MachineReport) {
    json.name("notices");
    json.begin_array();
    machine.notices.iter().for_each(|notice| json.value(notice.as_str()));
    json.end_array();
}

/// What runs.
fn system(json: &mut Json, machine: &MachineReport) {
    json.field("board", said(&machine.board));
    json.field("release", said(&machine.release));
    json.field("version", machine.version);
    json.field("slot", said(&machine.slot));
    json.field("trial", machine.is_trial);
    json.field("configuration", said(&machine.configuration));
    json.field("configurationVersion", machine.configuration_version);
}

fn update(json: &mut Json, update: &UpdateReport) {
    json.name("update");
    json.begin_object();
    json.field("state", update.state.name());
    json.field("text", said(&update.text));
    json.field("version", update.version);
    json.end_object();
}

/// A text, if it says something.
fn said(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
