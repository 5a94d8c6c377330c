package clientapi

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// TestLargeUploadsTakeTurns lets one large upload of a user in at a time, few of all, and any number of small ones.
func TestLargeUploadsTakeTurns(t *testing.T) {
	var u uploads
	enter := func(user store.UserNID, size int64) (leave func(), in bool) {
		t.Helper()
		req := httptest.NewRequest(http.MethodPut, "/", nil)
		req.ContentLength = size
		r := &Request{Context: echo.New().NewContext(req, httptest.NewRecorder()), Session: &accounts.Session{User: user}}
		leave, err := u.enter(r)
		if err != nil && !errors.Is(err, matrix.LimitExceeded(0)) {
			t.Errorf("refused with %v", err)
		}
		return leave, err == nil
	}
	const large, unknown = maxClientJSON + 1, -1
	first, in := enter(1, large)
	if !in {
		t.Fatal("the first large upload was refused")
	}
	for _, size := range []int64{large, unknown} {
		if _, in := enter(1, size); in {
			t.Errorf("a second upload of %d bytes was let in", size)
		}
	}
	small, in := enter(1, maxClientJSON)
	if !in {
		t.Error("a small upload was refused")
	}
	small()
	if _, in := enter(1, large); in {
		t.Error("the end of a small upload let a large one in")
	}
	for user := store.UserNID(2); user <= maxUploads; user++ {
		if _, in := enter(user, unknown); !in {
			t.Errorf("the upload of user %d was refused", user)
		}
	}
	if _, in := enter(99, large); in {
		t.Errorf("more than %d large uploads were let in", maxUploads)
	}
	first()
	if _, in := enter(99, large); !in {
		t.Error("the place of an upload that ended is not free")
	}
}
