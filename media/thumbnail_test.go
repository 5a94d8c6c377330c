package media

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"runtime"
	"testing"
	"time"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// quarters is a picture with red, green, blue and white in its four quarters, in the order of reading.
func quarters(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.RGBA{A: 255}
			switch {
			case y < h/2 && x < w/2:
				c.R = 255
			case y < h/2:
				c.G = 255
			case x < w/2:
				c.B = 255
			default:
				c.R, c.G, c.B = 255, 255, 255
			}
			img.SetRGBA(x, y, c)
		}
	}
	return img
}

func asPNG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var out bytes.Buffer
	must(t, png.Encode(&out, img))
	return out.Bytes()
}

func asJPEG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var out bytes.Buffer
	must(t, jpeg.Encode(&out, img, &jpeg.Options{Quality: 95}))
	return out.Bytes()
}

// oriented puts an EXIF orientation before a JPEG's picture.
func oriented(data []byte, orientation uint16, order binary.AppendByteOrder) []byte {
	exif := []byte("Exif\x00\x00MM\x00*")
	if order == binary.LittleEndian {
		exif = []byte("Exif\x00\x00II*\x00")
	}
	exif = order.AppendUint32(exif, 8)
	exif = order.AppendUint16(exif, 1)
	exif = order.AppendUint16(exif, 0x0112)
	exif = order.AppendUint16(exif, 3)
	exif = order.AppendUint32(exif, 1)
	exif = order.AppendUint16(exif, orientation)
	exif = append(exif, 0, 0, 0, 0, 0, 0)
	out := append([]byte{0xFF, 0xD8, 0xFF, 0xE1}, byte((len(exif)+2)>>8), byte(len(exif)+2))
	return append(append(out, exif...), data[2:]...)
}

// colours reads the corners of a picture, in the order of reading.
func colours(img image.Image) string {
	b := img.Bounds()
	name := func(x, y int) byte {
		r, g, bl, _ := img.At(x, y).RGBA()
		switch hi := func(v uint32) bool { return v > 0x8000 }; {
		case hi(r) && hi(g) && hi(bl):
			return 'w'
		case hi(r):
			return 'r'
		case hi(g):
			return 'g'
		case hi(bl):
			return 'b'
		}
		return '?'
	}
	x, y := b.Dx()/8, b.Dy()/8
	return string([]byte{name(x, y), name(b.Dx()-1-x, y), name(x, b.Dy()-1-y), name(b.Dx()-1-x, b.Dy()-1-y)})
}

func box(w, h int, crop bool) store.ThumbnailSize {
	return store.ThumbnailSize{Width: w, Height: h, Crop: crop}
}

func TestSizes(t *testing.T) {
	proof.Of(t, "ME-05")
	for _, c := range []struct {
		want store.ThumbnailSize
		made store.ThumbnailSize // zero: the content itself
		of   image.Point
		come image.Point
	}{
		{box(32, 32, true), box(32, 32, true), image.Pt(1000, 500), image.Pt(32, 32)},
		{box(40, 40, true), box(96, 96, true), image.Pt(1000, 500), image.Pt(96, 96)},
		{box(200, 100, true), box(320, 160, true), image.Pt(1000, 1000), image.Pt(320, 160)},
		{box(100, 200, true), box(160, 320, true), image.Pt(1000, 1000), image.Pt(160, 320)},
		{box(900, 900, true), box(0, 0, false), image.Pt(1000, 1000), image.Pt(1000, 1000)},
		{box(1, 1, false), box(320, 240, false), image.Pt(1000, 500), image.Pt(320, 160)},
		{box(320, 240, false), box(320, 240, false), image.Pt(500, 1000), image.Pt(120, 240)},
		{box(321, 1, false), box(640, 480, false), image.Pt(1000, 500), image.Pt(640, 320)},
		{box(5000, 1, false), box(0, 0, false), image.Pt(9000, 10), image.Pt(9000, 10)},
		{box(320, 240, false), box(320, 240, false), image.Pt(320, 240), image.Pt(320, 240)}, // never larger than the image
		{box(96, 96, true), box(96, 96, true), image.Pt(20, 10), image.Pt(20, 10)},
		{box(96, 96, true), box(96, 96, true), image.Pt(50, 200), image.Pt(50, 50)},
		{box(320, 240, false), box(320, 240, false), image.Pt(16000, 1), image.Pt(320, 1)},
		{box(32, 32, true), box(32, 32, true), image.Pt(1, 16000), image.Pt(1, 1)},
	} {
		made, small := round(c.want)
		if !small {
			made = store.ThumbnailSize{}
		}
		if made != c.made {
			t.Errorf("%v is rounded to %v, want %v", c.want, made, c.made)
		}
		if from, to := frame(c.of.X, c.of.Y, c.made); to != c.come || !from.In(image.Rect(0, 0, c.of.X, c.of.Y)) || from.Dx() < to.X || from.Dy() < to.Y {
			t.Errorf("%v of %v comes out as %v from %v, want %v", c.made, c.of, to, from, c.come)
		}
	}
	// Whatever people ask for, a content has a few dozen thumbnails at most.
	sizes := map[store.ThumbnailSize]bool{}
	for w := 1; w < 2000; w += 3 {
		for h := 1; h < 2000; h += 7 {
			for _, crop := range []bool{true, false} {
				if made, small := round(box(w, h, crop)); small {
					sizes[made] = true
					if made.Width < w || made.Height < h {
						t.Fatalf("%dx%d is rounded to less: %v", w, h, made)
					}
				}
			}
		}
	}
	if len(sizes) > 100 {
		t.Errorf("%d sizes", len(sizes))
	}
}

func TestPicturesComeOutAsTheyAreSeen(t *testing.T) {
	late := time.Now().Add(time.Hour)
	for orientation, want := range map[uint16]string{0: "rgbw", 1: "rgbw", 2: "grwb", 3: "wbgr", 4: "bwrg", 5: "rbgw", 6: "brwg", 7: "wgbr", 8: "gwrb", 9: "rgbw"} {
		for _, order := range []binary.AppendByteOrder{binary.BigEndian, binary.LittleEndian} {
			data := oriented(asJPEG(t, quarters(400, 200)), orientation, order)
			got, err := shrink(bytes.NewReader(data), box(320, 240, false), late)
			must(t, err)
			img, format, err := image.Decode(bytes.NewReader(got.data))
			must(t, err)
			size := image.Pt(320, 160)
			if orientation >= 5 && orientation <= 8 {
				size = image.Pt(120, 240)
			}
			if colours(img) != want || img.Bounds().Size() != size || format != "jpeg" || bytes.Contains(got.data, []byte("Exif")) {
				t.Errorf("orientation %d: %s of %v, want %s of %v", orientation, colours(img), img.Bounds(), want, size)
			}
		}
	}
	// What shows through goes on doing so.
	img := quarters(400, 400)
	for i := range 100 * 100 {
		img.SetRGBA(i%100, i/100, color.RGBA{})
	}
	got, err := shrink(bytes.NewReader(asPNG(t, img)), box(96, 96, true), late)
	if err != nil || got.kind != "image/png" {
		t.Errorf("%s, %v", got.kind, err)
	}
	// A small JPEG serves as it is; a small PNG or GIF could move and is made anew.
	got, err = shrink(bytes.NewReader(asJPEG(t, quarters(20, 20))), box(96, 96, true), late)
	if err != nil || got.data != nil || got.kind != "image/jpeg" {
		t.Errorf("%+v, %v", got, err)
	}
	palette := image.NewPaletted(image.Rect(0, 0, 20, 20), color.Palette{color.Black, color.White})
	var moving bytes.Buffer
	must(t, gif.EncodeAll(&moving, &gif.GIF{Image: []*image.Paletted{palette, palette}, Delay: []int{1, 1}}))
	got, err = shrink(bytes.NewReader(moving.Bytes()), box(96, 96, true), late)
	if err != nil || got.kind == "image/gif" || got.data == nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// claimedPNG is the header of a PNG of a size that is nowhere to be found in it.
func claimedPNG(w, h uint32) []byte {
	head := binary.BigEndian.AppendUint32([]byte("IHDR"), w)
	head = binary.BigEndian.AppendUint32(head, h)
	head = append(head, 8, 2, 0, 0, 0)
	out := append([]byte("\x89PNG\r\n\x1a\n"), 0, 0, 0, 13)
	out = append(out, head...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(head))
}

func TestHostilePictures(t *testing.T) {
	proof.Of(t, "M03")
	dbtest.EachInTurn(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		whole := asPNG(t, quarters(400, 400))
		photo := asJPEG(t, quarters(400, 400))
		webp := append([]byte("RIFF\xff\xff\xff\x7fWEBPVP8X\n\x00\x00\x00\x00\x00\x00\x00"), 0xff, 0xff, 0, 0xff, 0xff, 0)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for name, c := range map[string]struct {
			data   []byte
			status int
			code   string
		}{
			"a bomb":            {claimedPNG(50_000, 50_000), 413, "M_TOO_LARGE"},
			"too many pixels":   {claimedPNG(8000, 8000), 413, "M_TOO_LARGE"},
			"a long line":       {claimedPNG(20_000, 1), 413, "M_TOO_LARGE"},
			"no pixels":         {claimedPNG(0, 0), 400, "M_UNKNOWN"},
			"not there":         {claimedPNG(4000, 4000), 400, "M_UNKNOWN"},
			"cut off":           {whole[:len(whole)/2], 400, "M_UNKNOWN"},
			"a JPEG cut off":    {photo[:len(photo)/2], 400, "M_UNKNOWN"},
			"a cut EXIF":        {oriented(photo, 6, binary.BigEndian)[:20], 400, "M_UNKNOWN"},
			"a large webp":      {webp, 400, "M_UNKNOWN"},
			"no picture":        {[]byte("<svg onload=alert(1)>"), 400, "M_UNKNOWN"},
			"nothing":           {nil, 400, "M_UNKNOWN"},
			"an endless gif":    {append([]byte("GIF89a\xff\xff\xff\xff\x00\x00\x00"), make([]byte, 1000)...), 413, "M_TOO_LARGE"},
			"two heads of JPEG": {append(append([]byte{}, photo[:4]...), photo...), 400, "M_UNKNOWN"},
		} {
			q := Query{Server: us, ID: w.upload(c.data)}
			for range 2 { // the second time it is remembered
				got, err := w.Thumbnail(t.Context(), q, box(96, 96, true))
				if err == nil {
					_ = got.File.Close()
					t.Errorf("%s: made a thumbnail", name)
					continue
				}
				wantCode(t, err, c.status, c.code)
			}
		}
		runtime.ReadMemStats(&after)
		if grown := int64(after.TotalAlloc-before.TotalAlloc) >> 20; grown > 300 {
			t.Errorf("hostile pictures cost %d MiB", grown)
		}
		if got := w.tree(); len(got) != 13 {
			t.Errorf("the store has %q", got)
		}
	})
}

func TestThumbnailsAreMadeOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		read := func(id string) []byte {
			c, err := w.Thumbnail(t.Context(), Query{Server: us, ID: id}, box(90, 90, true))
			must(t, err)
			defer c.File.Close()
			data, err := io.ReadAll(c.File)
			must(t, err)
			if c.Type != "image/jpeg" || c.Name != "thumbnail.jpg" || int64(len(data)) != c.Size {
				t.Errorf("%s %q, %d of %d bytes", c.Type, c.Name, len(data), c.Size)
			}
			return data
		}
		id := w.upload(asPNG(t, quarters(400, 400)))
		first := read(id)
		w.files(2)
		w.restart()
		if !bytes.Equal(read(id), first) {
			t.Error("the thumbnail changed")
		}
		w.files(2)
		// Another server's goes with its copy.
		data := asPNG(t, quarters(400, 400))
		w.remote.gives(content("image/png", "", bytes.NewReader(data)))
		c, err := w.Thumbnail(t.Context(), Query{Server: them, ID: "x", Remote: true, User: 1}, box(90, 90, true))
		must(t, err)
		must(t, c.File.Close())
		w.files(4)
		_, err = w.forget(t.Context(), store.Media{Origin: them, ID: "x"})
		must(t, err)
		w.files(2)
		for _, bad := range [][3]string{{"", "1", ""}, {"1", "", ""}, {"0", "1", ""}, {"-1", "1", ""}, {"1.5", "1", ""}, {"99999", "1", ""}, {"1", "1", "stretch"}} {
			_, err := ParseSize(bad[0], bad[1], bad[2], "")
			wantCode(t, err, 400, "M_INVALID_PARAM")
		}
	})
}

func FuzzJPEGLook(f *testing.F) {
	f.Add(oriented(asJPEG(f, quarters(8, 8)), 6, binary.BigEndian))
	f.Add([]byte{0xFF, 0xD8, 0xFF, 0xE1, 0, 2})
	f.Fuzz(func(t *testing.T, data []byte) {
		if look := lookIntoJPEG(bytes.NewReader(data)); look.orientation < 1 || look.orientation > 8 {
			t.Errorf("orientation %d", look.orientation)
		}
	})
}
