package federation

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"conclave/internal/matrix"
)

// TestBodiesOfStrangersAreBoundedTogether: many large bodies at once, of nobody knows whom, are refused beyond a bound, small
// ones are not, and room that was given back is there again.
func TestBodiesOfStrangersAreBoundedTogether(t *testing.T) {
	var s strangers
	open := func(size int) *inBody {
		r := httptest.NewRequest(http.MethodPut, "/", bytes.NewReader(make([]byte, size)))
		return s.body(httptest.NewRecorder(), r, maxTransaction)
	}
	var held []*inBody
	for {
		b := open(maxTransaction)
		_, err := b.read()
		held = append(held, b)
		if err == nil {
			if len(held) > maxStrangers/maxTransaction+1 {
				t.Fatalf("%d of the largest bodies are held", len(held))
			}
			continue
		}
		var refused *matrix.Error
		if !errors.As(err, &refused) || refused.Status != http.StatusTooManyRequests {
			t.Fatal(err)
		}
		break
	}
	if len(held) < maxStrangers/maxTransaction {
		t.Errorf("only %d of the largest bodies are held", len(held))
	}
	small := open(smallBody)
	if data, err := small.read(); err != nil || len(data) != smallBody {
		t.Errorf("a small body: %d bytes, %v", len(data), err)
	}
	held[0].release()
	held[0].release()
	again := open(maxTransaction / 2)
	if data, err := again.read(); err != nil || len(data) != maxTransaction/2 {
		t.Errorf("after some room was given back: %d bytes, %v", len(data), err)
	}
	for _, b := range append(held[1:], small, again) {
		b.release()
	}
	if left := s.held.Load(); left != 0 {
		t.Errorf("%d bytes are never given back", left)
	}
}

// TestBodiesThatAreTooLong: what is announced or comes beyond the limit of an operation is refused.
func TestBodiesThatAreTooLong(t *testing.T) {
	var s strangers
	for _, announced := range []bool{true, false} {
		r := httptest.NewRequest(http.MethodPut, "/", io.LimitReader(zeros{}, 101))
		if announced {
			r.ContentLength = 101
		}
		b := s.body(httptest.NewRecorder(), r, 100)
		var refused *matrix.Error
		if _, err := b.read(); !errors.As(err, &refused) || refused.Status != http.StatusRequestEntityTooLarge {
			t.Errorf("announced %v: %v", announced, err)
		}
		b.release()
	}
	if left := s.held.Load(); left != 0 {
		t.Errorf("%d bytes are never given back", left)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
