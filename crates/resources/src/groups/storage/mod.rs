//! `storage.k8s.io`: storage classes, CSI drivers and volume attachments.

mod attachments;
mod classes;
mod columns;
mod drivers;

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::def::KeptMetadata;
use crate::table;

pub(crate) fn group() -> GroupBuilder {
    let resources = vec![
        resource("CSIDriver", "csidrivers")
            .cluster()
            .generation(&["spec"])
            .conditional_update()
            .returns_deleted()
            .columns(columns::driver())
            .strategy(drivers::DriverStrategy),
        resource("CSINode", "csinodes")
            .cluster()
            .conditional_update()
            .returns_deleted()
            .columns(columns::node())
            .strategy(drivers::NodeDriversStrategy),
        resource("CSIStorageCapacity", "csistoragecapacities")
            .conditional_update()
            .columns(table::name_and_creation())
            .strategy(attachments::CapacityStrategy),
        resource("StorageClass", "storageclasses")
            .cluster()
            .short(&["sc"])
            .returns_deleted()
            .columns(columns::storage_class())
            .strategy(classes::StorageClassStrategy),
        resource("VolumeAttachment", "volumeattachments")
            .cluster()
            .status()
            .keeps_metadata(KeptMetadata::ALL)
            .conditional_update()
            .returns_deleted()
            .columns(columns::attachment())
            .strategy(attachments::AttachmentStrategy),
        resource("VolumeAttributesClass", "volumeattributesclasses")
            .cluster()
            .short(&["vac"])
            .optional(&["v1beta1"])
            .returns_deleted()
            .columns(columns::attributes_class())
            .strategy(classes::AttributesClassStrategy),
    ];
    declare("storage.k8s.io", "io.k8s.api.storage", resources)
}
