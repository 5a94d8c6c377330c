package media

import (
	"bytes"
	"image"
	"image/color"
	"image/gif"
	"io"
	"slices"
	"testing"
	"time"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// moving is a GIF whose frames are red, green and blue, of which the last fills only the right half.
func moving(t testing.TB, w, h int) []byte {
	t.Helper()
	palette := color.Palette{color.RGBA{R: 255, A: 255}, color.RGBA{G: 255, A: 255}, color.RGBA{B: 255, A: 255}}
	g := &gif.GIF{LoopCount: 3}
	for i := range palette {
		r := image.Rect(0, 0, w, h)
		if i == 2 {
			r.Min.X = w / 2
		}
		f := image.NewPaletted(r, palette)
		for p := range f.Pix {
			f.Pix[p] = uint8(i)
		}
		g.Image, g.Delay, g.Disposal = append(g.Image, f), append(g.Delay, 7+i), append(g.Disposal, gif.DisposalNone)
	}
	var out bytes.Buffer
	must(t, gif.EncodeAll(&out, g))
	return out.Bytes()
}

// webpHead is the beginning of a WebP file that moves.
var webpHead = []byte("RIFF\xff\x00\x00\x00WEBPVP8X\n\x00\x00\x00\x02\x00\x00\x00\x0f\x00\x00\x0f\x00\x00")

func TestMovingThumbnails(t *testing.T) {
	proof.Of(t, "ME-05")
	each(t, func(t *testing.T, w *world) {
		get := func(kind string, data []byte, size store.ThumbnailSize) (string, []byte) {
			t.Helper()
			id, err := w.Upload(t.Context(), 1, Upload{Type: kind, Length: -1, Body: bytes.NewReader(data)})
			must(t, err)
			c, err := w.Thumbnail(t.Context(), Query{Server: us, ID: id}, size)
			if err != nil {
				return "", nil
			}
			defer c.File.Close()
			got, err := io.ReadAll(c.File)
			must(t, err)
			return c.Type, got
		}
		animated := func(size store.ThumbnailSize) store.ThumbnailSize {
			size.Moving = true
			return size
		}
		large := moving(t, 400, 300)
		kind, data := get("image/gif", large, animated(box(96, 96, true)))
		g, err := gif.DecodeAll(bytes.NewReader(data))
		if err != nil || kind != "image/gif" || len(g.Image) != 3 || !slices.Equal(g.Delay, []int{7, 8, 9}) || g.LoopCount != 3 || g.Config.Width != 96 || g.Config.Height != 96 {
			t.Fatalf("%s, %v: %+v", kind, err, g)
		}
		for i, want := range []color.RGBA{{R: 255, A: 255}, {G: 255, A: 255}, {B: 255, A: 255}} {
			if got := color.RGBAModel.Convert(g.Image[i].At(80, 10)); got != want {
				t.Errorf("frame %d is %v on the right, want %v", i, got, want)
			}
		}
		if got := color.RGBAModel.Convert(g.Image[2].At(10, 10)); got != (color.RGBA{G: 255, A: 255}) {
			t.Errorf("the last frame is %v on the left, where the one before shows", got)
		}
		if kind, data := get("image/gif", large, box(96, 96, true)); kind != "image/jpeg" || len(data) == 0 {
			t.Errorf("not asked to move it is %s", kind)
		}
		small := moving(t, 20, 10)
		if kind, data := get("image/gif", small, animated(box(96, 96, true))); kind != "image/gif" || !bytes.Equal(data, small) {
			t.Errorf("a small one is %s of %d bytes", kind, len(data))
		}
		if kind, _ := get("image/png", asPNG(t, quarters(400, 400)), animated(box(96, 96, true))); kind != "image/jpeg" {
			t.Errorf("what cannot move is %s", kind)
		}
		if kind, _ := get("image/webp", webpHead, box(96, 96, true)); kind != "" {
			t.Errorf("a WebP that moves was given as it is, to somebody who wants none that moves, as %s", kind)
		}
		if kind, data := get("image/webp", webpHead, animated(box(96, 96, true))); kind != "image/webp" || !bytes.Equal(data, webpHead) {
			t.Errorf("asked to move it is %s", kind)
		}
	})
}

// TestHostileGIFs has more frames, or larger ones, than are decoded: the picture stands still, and costs what one frame does.
func TestHostileGIFs(t *testing.T) {
	proof.Of(t, "M03")
	frame := []byte{0x2C, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x44, 1, 0}
	head := append([]byte("GIF89a\x90\x01\x90\x01\x80\x00\x00"), 255, 0, 0, 0, 0, 255)
	many := append(slices.Clone(head), bytes.Repeat(frame, 100_000)...)
	if look := lookIntoGIF(bytes.NewReader(many)); look.frames != maxFrames+1 {
		t.Errorf("%d frames were counted", look.frames)
	}
	dbtest.EachInTurn(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		id, err := w.Upload(t.Context(), 1, Upload{Type: "image/gif", Length: -1, Body: io.LimitReader(bytes.NewReader(many), 1<<20)})
		must(t, err)
		began := time.Now()
		c, err := w.Thumbnail(t.Context(), Query{Server: us, ID: id}, store.ThumbnailSize{Width: 96, Height: 96, Moving: true})
		if err == nil {
			if c.Type == "image/gif" {
				t.Errorf("a hundred thousand frames move, in %d bytes", c.Size)
			}
			must(t, c.File.Close())
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
	for _, l := range []struct {
		look   gifLook
		canvas image.Point
		want   bool
	}{
		{gifLook{2, 200}, image.Pt(10, 10), true},
		{gifLook{1, 100}, image.Pt(10, 10), false},
		{gifLook{200, 100}, image.Pt(1000, 1000), false},
		{gifLook{2, 100}, image.Pt(4000, 4000), false},
		{gifLook{2, maxFramePixels + 1}, image.Pt(10, 10), false},
	} {
		if got := l.look.movable(l.canvas); got != l.want {
			t.Errorf("%+v of %v: %v", l.look, l.canvas, got)
		}
	}
}

func FuzzGIFLook(f *testing.F) {
	f.Add(moving(f, 4, 4))
	f.Fuzz(func(t *testing.T, data []byte) {
		if look := lookIntoGIF(bytes.NewReader(data)); look.frames > maxFrames+1 || look.pixels < 0 {
			t.Errorf("%+v", look)
		}
	})
}
