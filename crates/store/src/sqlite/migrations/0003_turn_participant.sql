-- Participants of our own rooms among TURN users. `room` is now the one namespace: the participant's room, else what the
-- user name says, which stays in `named_room`.
ALTER TABLE turn_sessions ADD COLUMN participant_sid TEXT NOT NULL DEFAULT '';
ALTER TABLE turn_sessions ADD COLUMN identity TEXT NOT NULL DEFAULT '';
ALTER TABLE turn_sessions ADD COLUMN room_sid TEXT NOT NULL DEFAULT '';
ALTER TABLE turn_sessions ADD COLUMN named_room TEXT NOT NULL DEFAULT '';
UPDATE turn_sessions SET named_room = room;
CREATE INDEX turn_sessions_by_room_sid ON turn_sessions (room_sid) WHERE room_sid <> '';

ALTER TABLE turn_allocations ADD COLUMN participant_sid TEXT NOT NULL DEFAULT '';
ALTER TABLE turn_allocations ADD COLUMN identity TEXT NOT NULL DEFAULT '';
ALTER TABLE turn_allocations ADD COLUMN room_sid TEXT NOT NULL DEFAULT '';
ALTER TABLE turn_allocations ADD COLUMN named_room TEXT NOT NULL DEFAULT '';
UPDATE turn_allocations SET named_room = room;
