package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"muster/actors/presence"
	"muster/actors/row"
)

// rowKinds names the kinds of rows of a shard, as the table in actors/row has them.
var rowKinds = map[byte]string{
	'o': "online index", 'k': "dedupe", 't': "transfer", 'a': "transfer taken", 'f': "transfer floor",
	'v': "event", 'l': "letter", 'h': "webhook cursor", 'm': "counters", 'x': "expiry",
}

// userKinds names the kinds of rows of a user.
var userKinds = map[byte]string{
	0: "profile", 'a': "audience", 'c': "claim", 'd': "device", 'g': "relation", 'i': "invisible", 'k': "revocations",
	'n': "notify_when", 'o': "outbox", 'p': "device cursor", 's': "sender floor", 'z': "outbox entry",
}

// rowKind names the kind of a row of a shard by its key.
func rowKind(key []byte) string {
	if len(key) == 0 {
		return "unknown"
	}
	if name := rowKinds[key[0]]; name != "" {
		return name
	}
	if _, sub, ok := userPart(key); ok && userKinds[sub] != "" {
		return userKinds[sub]
	}
	return "unknown"
}

// userPart takes the key of a user's row apart: whose it is and which.
func userPart(key []byte) (k presence.Key, sub byte, ok bool) {
	if len(key) == 0 || key[0] != 'u' {
		return k, 0, false
	}
	rest := key[1:]
	for _, part := range []*string{&k.App, &k.User} {
		if len(rest) == 0 || len(rest) <= int(rest[0]) {
			return k, 0, false
		}
		*part, rest = string(rest[1:1+int(rest[0])]), rest[1+int(rest[0]):]
	}
	if len(rest) == 0 {
		return k, 0, false
	}
	return k, rest[0], true
}

// rowText is the record in a row of a user in a shard of some generation, in words. Tokens
// of push services are secrets.
func rowText(k presence.Key, generation uint64, key, value []byte) string {
	_, sub, _ := userPart(key)
	var record any
	var err error
	switch sub {
	case 0:
		record, err = row.DecodeProfile(value)
	case 'z':
		return entryText(k, key, value)
	default:
		var stored presence.Record
		if stored, err = row.Decode(k, key, value); err == nil {
			record = row.Salted([]presence.Record{stored}, generation)[0]
		}
	}
	if d, ok := record.(presence.DeviceSet); ok && d.Token != "" {
		d.Token = "********"
		record = d
	}
	return words(record, err)
}

func entryText(k presence.Key, key, value []byte) string {
	record, err := row.Decode(k, key, value)
	put, ok := record.(presence.EntryPut)
	if err != nil || !ok {
		return words(record, err)
	}
	put, body, err := row.DecodeEntry(put.Entry.Offset, value)
	return fmt.Sprintf("%s body=%s", words(put.Entry, err), body)
}

func words(record any, err error) string {
	if err != nil {
		return "unreadable: " + err.Error()
	}
	text, err := json.Marshal(record)
	if err != nil {
		return fmt.Sprintf("%+v", record)
	}
	return strings.TrimSpace(string(text))
}
