package oauth

import (
	"errors"
	"testing"
)

// Rack, for one, makes no difference between an empty content type and none.
func TestFormWithAnEmptyTypeIsAFormWithout(t *testing.T) {
	for action, want := range map[PlaceAction]error{PlaceInspect: nil, PlaceStrip: ErrNoToken, PlaceReject: ErrRejectedPlace} {
		places := mustPlaces(t, Place{PlaceForm, DefaultParameter, action})
		for name, types := range map[string][]string{"none": nil, "empty": {""}, "white space": {" \t"}} {
			r := formRequest("POST", "", "access_token=a")
			delete(r.Header, "Content-Type")
			if types != nil {
				r.Header["Content-Type"] = types
			}
			got, err := places.Read(r)
			if !errors.Is(err, want) || want == nil && got.Token != "a" {
				t.Errorf("%s, action %d: %+v, %v", name, action, got, err)
			}
		}
	}
}
