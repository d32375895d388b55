package oauth

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
)

func TestSplitObjectKeepsWhatWasWritten(t *testing.T) {
	members, err := splitObject([]byte(" {\"a\" :\t1e2 , \"b\\u0022}\":{\"x\":[1,\"]}\\\\\",{}]},\"c\":[ ],\n\"d\":\"\\\"\",\"a\":null , \"e\":-0.5}\n"))
	if err != nil {
		t.Fatal(err)
	}
	var names, values []string
	for _, m := range members {
		names, values = append(names, m.name), append(values, string(m.value))
	}
	if want := []string{"a", `b"}`, "c", "d", "a", "e"}; !reflect.DeepEqual(names, want) {
		t.Errorf("names %q", names)
	}
	if want := []string{"1e2", `{"x":[1,"]}\\",{}]}`, "[ ]", `"\""`, "null", "-0.5"}; !reflect.DeepEqual(values, want) {
		t.Errorf("values %q", values)
	}
	if got := string(joinObject(members)); got != "{\"a\" :\t1e2,\"b\\u0022}\":{\"x\":[1,\"]}\\\\\",{}]},\"c\":[ ],\"d\":\"\\\"\",\"a\":null,\"e\":-0.5}" {
		t.Errorf("joined %s", got)
	}
	for _, text := range []string{"", "null", "[]", `"{}"`, "{}{}", `{"a":1,}`, `{"a"}`, "{", "\x00{}"} {
		if _, err := splitObject([]byte(text)); err == nil {
			t.Errorf("%q is taken for an object", text)
		}
	}
}

// What is split has the members that encoding/json finds, and is the same after
// it was joined.
func FuzzSplitObject(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1}`, ` { "a" : [ 1 , {"b":"\"}"} ] , "\u0061":true } `, `{"":"\\","x":{}}`, "{\"\xff\":\"\xff\"}", `[]`, `{"a":1`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		members, err := splitObject(text)
		var want map[string]json.RawMessage
		wantErr := json.Unmarshal(text, &want)
		if (err == nil) != (wantErr == nil && want != nil) {
			t.Fatalf("split %v, encoding/json %v", err, wantErr)
		}
		if err != nil {
			return
		}
		last := make(map[string]json.RawMessage)
		for _, m := range members {
			last[m.name] = m.value
		}
		for name, value := range want {
			if !bytes.Equal(last[name], value) {
				t.Errorf("%q: %s, want %s", name, last[name], value)
			}
		}
		if len(last) != len(want) {
			t.Errorf("%d members, want %d", len(last), len(want))
		}
		again, err := splitObject(joinObject(members))
		if err != nil || len(again) != len(members) {
			t.Fatalf("joined: %v", err)
		}
		for i := range again {
			if again[i].name != members[i].name || !bytes.Equal(again[i].text, members[i].text) {
				t.Errorf("member %d was changed", i)
			}
		}
	})
}
