"""Everything that writes data: videos to pairs, pairs to records. Needs codecs; training does not."""
