package media

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"conclave/internal/store"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/s3"
)

// TestNothingIsAcknowledgedThatS3HasNotWhole cuts the network in the middle of an upload, and lets the service lose what
// it has acknowledged.
func TestNothingIsAcknowledgedThatS3HasNotWhole(t *testing.T) {
	proof.Of(t, "M07")
	w := inBucket(t)
	content := random(700_000)
	fails := func(what string) {
		t.Helper()
		var rows int64
		id, err := w.Upload(t.Context(), 1, Upload{Type: "text/plain", Length: int64(len(content)), Body: bytes.NewReader(content)})
		if err == nil {
			t.Errorf("%s: the upload was acknowledged as %s", what, id)
		}
		wantCode(t, err, 503, "M_UNKNOWN")
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) (err error) {
			rows, _, err = tx.MediaUse(1)
			return err
		}))
		if rows != 0 {
			t.Errorf("%s: a row says that there are %d bytes", what, rows)
		}
	}
	w.s3.CutAfter(300_000)
	fails("cut")
	w.s3.CutAfter(-1)
	w.restart() // what could not be removed without a network goes now
	w.files(0)
	w.s3.Lose(func(_ string, data []byte) []byte { return data[:len(data)/2] })
	fails("half of it lost")
	w.s3.Lose(nil)
	w.s3.FlipAfter(300_000)
	fails("a bit changed on the way")
	w.files(0)
	if got, _, err := w.read(Query{Server: us, ID: w.upload(content)}); err != nil || !bytes.Equal(got, content) {
		t.Errorf("afterwards: %d bytes, %v", len(got), err)
	}
}

func TestBucketsArePrivate(t *testing.T) {
	proof.Of(t, "M07")
	w := inBucket(t)
	w.upload([]byte("secret"))
	for _, object := range w.s3.Objects() {
		if status := w.s3.Anonymous(object); status != 403 {
			t.Errorf("%s was answered %d to somebody without a key", object, status)
		}
	}
	for what, change := range map[string]func(){
		"a public bucket": func() { w.options.Config.Media.S3.Endpoint = s3.StartPublic(t).URL },
		"no such bucket":  func() { w.options.Config.Media.S3.Bucket = "another" },
		"a wrong secret":  func() { w.options.Config.Media.S3.SecretKey = "wrong" },
	} {
		before := w.options.Config.Media.S3
		change()
		if _, err := New(w.options); err == nil || !strings.Contains(err.Error(), "media.s3: the bucket ") || strings.Contains(err.Error(), "wrong") {
			t.Errorf("%s: the server started: %v", what, err)
		}
		w.options.Config.Media.S3 = before
	}
}

func TestObjectsAreReadFromAnyPlace(t *testing.T) {
	w := inBucket(t)
	content := random(300_000)
	c, err := w.Open(t.Context(), Query{Server: us, ID: w.upload(content)})
	must(t, err)
	defer c.File.Close()
	part := make([]byte, 1000)
	for _, at := range []int64{0, 299_000, 5, 1005, 100} {
		if got, err := c.File.Seek(at, io.SeekStart); err != nil || got != at {
			t.Fatal(got, err)
		}
		if _, err := io.ReadFull(c.File, part); err != nil || !bytes.Equal(part, content[at:at+1000]) {
			t.Errorf("at %d: %v", at, err)
		}
	}
	if end, err := c.File.Seek(0, io.SeekEnd); err != nil || end != 300_000 {
		t.Errorf("the end is at %d, %v", end, err)
	}
	if n, err := c.File.Read(part); n != 0 || err != io.EOF { //nolint:errorlint // as io.Reader has it
		t.Errorf("behind the end: %d, %v", n, err)
	}
}

func TestVerifyFindsDamagedObjects(t *testing.T) {
	w := inBucket(t)
	for range 3 {
		w.upload(random(1000))
	}
	check := func() (found []string) {
		n, err := Verify(t.Context(), w.db, w.options.Config, w.options.Log, true, func(f store.Finding) { found = append(found, f.Text) })
		if err != nil || n != 3 {
			t.Errorf("%d files, %v", n, err)
		}
		return found
	}
	if found := check(); len(found) > 0 {
		t.Errorf("sound objects: %q", found)
	}
	objects := w.tree()
	w.s3.Put(objects[0], random(999))
	w.s3.Put(objects[1], random(1000))
	must(t, w.blobs.remove(t.Context(), strings.TrimPrefix(objects[2], bucketPrefix)))
	found := strings.Join(check(), "\n")
	for _, what := range []string{"has another size", "has other bytes", "is not there"} {
		if !strings.Contains(found, what) {
			t.Errorf("no word of one that %s: %s", what, found)
		}
	}
}
