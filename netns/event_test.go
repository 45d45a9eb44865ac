package netns

import (
	"encoding/json"
	"testing"
)

// What is written as JSON reads well, and is read back.
func TestKindsAsText(t *testing.T) {
	type all struct {
		Event  Event
		Holder Holder
	}
	want := all{Event{EventChanged, Entry{Name: "web", ID: ID{Dev: 4, Ino: 7}}}, Holder{Kind: HolderSocket, Pid: 812, Comm: "nginx", Fd: 3}}
	const text = `{"Event":{"Kind":"changed","Name":"web","ID":{"Dev":4,"Ino":7}},` +
		`"Holder":{"Kind":"socket","Pid":812,"Comm":"nginx","Tid":0,"Fd":3,"Path":""}}`
	got, err := json.Marshal(want)
	if err != nil || string(got) != text {
		t.Errorf("%s, %v\nwant %s", got, err, text)
	}
	var again all
	if err := json.Unmarshal([]byte(text), &again); err != nil || again != want {
		t.Errorf("read back: %+v, %v", again, err)
	}
	if len(eventNames) != int(EventResync) || len(holderNames) != int(HolderMount) {
		t.Error("a kind has no name")
	}
}
