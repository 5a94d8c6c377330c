package media

import (
	"bufio"
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/gif"
	"io"
	"time"

	"golang.org/x/image/draw"

	"conclave/internal/store"
)

// Bounds of a GIF whose frames are all decoded (threats M03): a picture that has more stands still.
const (
	maxFrames      = 200
	maxFramePixels = 32 << 20 // of all frames, a byte each
	maxCanvas      = 4 << 20  // pixels of the whole
	maxDrawn       = 96 << 20 // pixels that are drawn for all frames together
)

// gifLook is what the blocks of a GIF say before anything is decoded.
type gifLook struct {
	frames int
	pixels int64 // of all frames
}

// lookIntoGIF counts the frames of a GIF, up to more than any is decoded of. What it cannot read it takes for the end.
func lookIntoGIF(r io.Reader) (look gifLook) {
	in := bufio.NewReader(r)
	var head [13]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return look
	}
	if skipColours(in, head[10]) != nil {
		return look
	}
	for look.frames <= maxFrames {
		kind, err := in.ReadByte()
		if err != nil {
			return look
		}
		switch kind {
		case 0x21: // an extension
			_, err = in.Discard(1)
		case 0x2C:
			var frame [9]byte
			if _, err = io.ReadFull(in, frame[:]); err == nil {
				look.frames++
				look.pixels += (int64(frame[4]) | int64(frame[5])<<8) * (int64(frame[6]) | int64(frame[7])<<8)
				if err = skipColours(in, frame[8]); err == nil {
					_, err = in.Discard(1) // the size of codes
				}
			}
		default: // the end, or what is no GIF
			return look
		}
		if err != nil || skipBlocks(in) != nil {
			return look
		}
	}
	return look
}

// skipColours skips a table of colours, if the flags say that there is one.
func skipColours(in *bufio.Reader, flags byte) error {
	if flags&0x80 == 0 {
		return nil
	}
	_, err := in.Discard(3 << (flags&7 + 1))
	return err
}

// skipBlocks skips blocks up to the empty one.
func skipBlocks(in *bufio.Reader) error {
	for {
		n, err := in.ReadByte()
		if err != nil || n == 0 {
			return err
		}
		if _, err := in.Discard(int(n)); err != nil {
			return err
		}
	}
}

// movable says whether a thumbnail of a GIF can move: it has several frames, and not more than can be afforded.
func (l gifLook) movable(canvas image.Point) bool {
	whole := int64(canvas.X) * int64(canvas.Y)
	return l.frames > 1 && l.frames <= maxFrames && l.pixels <= maxFramePixels && whole <= maxCanvas && int64(l.frames)*whole <= maxDrawn
}

// shrinkGIF makes a moving thumbnail of a GIF.
func shrinkGIF(r io.Reader, size store.ThumbnailSize, deadline time.Time) (*shrunk, error) {
	in, err := gif.DecodeAll(r)
	if err != nil {
		return nil, err
	}
	w, h := in.Config.Width, in.Config.Height
	from, to := frame(w, h, size)
	out := &gif.GIF{Delay: in.Delay, LoopCount: in.LoopCount, Config: image.Config{Width: to.X, Height: to.Y}}
	canvas := image.NewRGBA(image.Rect(0, 0, w, h))
	var before *image.RGBA
	for i, f := range in.Image {
		if time.Now().After(deadline) {
			return nil, errLate
		}
		if in.Disposal[i] == gif.DisposalPrevious {
			before = image.NewRGBA(canvas.Rect)
			copy(before.Pix, canvas.Pix)
		}
		draw.Draw(canvas, f.Bounds(), f, f.Bounds().Min, draw.Over)
		small := image.NewRGBA(image.Rectangle{Max: to})
		draw.ApproxBiLinear.Scale(small, small.Rect, canvas, from, draw.Src, nil)
		out.Image = append(out.Image, paletted(small, f.Palette))
		out.Disposal = append(out.Disposal, gif.DisposalBackground) // each frame is whole
		switch in.Disposal[i] {
		case gif.DisposalBackground:
			draw.Draw(canvas, f.Bounds(), image.Transparent, image.Point{}, draw.Src)
		case gif.DisposalPrevious:
			canvas = before
		}
	}
	var data bytes.Buffer
	if err := gif.EncodeAll(&data, out); err != nil {
		return nil, err
	}
	if data.Len() > maxImageFile {
		return nil, errors.New("media: the moving thumbnail is too large")
	}
	return &shrunk{"image/gif", data.Bytes()}, nil
}

// paletted gives every pixel the colour of a palette that is nearest. Of a palette only colours that show are taken, and
// one is added that does not. Nearness is worked out once for colours that differ in their lowest three bits.
func paletted(img *image.RGBA, of color.Palette) *image.Paletted {
	palette := color.Palette{color.Transparent}
	var plain [][3]int32
	add := func(c color.Color) {
		r, g, b, _ := c.RGBA()
		palette, plain = append(palette, c), append(plain, [3]int32{int32(r >> 8), int32(g >> 8), int32(b >> 8)})
	}
	for _, c := range of {
		if _, _, _, a := c.RGBA(); a == 0xFFFF && len(palette) < 256 {
			add(c)
		}
	}
	if len(plain) == 0 {
		add(color.Black)
	}
	out := image.NewPaletted(img.Rect, palette)
	var nearest [1 << 15]uint8 // 0 = not worked out
	for i := range out.Pix {
		p := img.Pix[4*i : 4*i+4 : 4*i+4]
		if p[3] < 0x80 {
			continue
		}
		key := int(p[0]>>3)<<10 | int(p[1]>>3)<<5 | int(p[2]>>3)
		if nearest[key] == 0 {
			nearest[key] = uint8(1 + closest(plain, p)) //nolint:gosec // below 256
		}
		out.Pix[i] = nearest[key]
	}
	return out
}

// closest is the place of the colour that is nearest to a pixel.
func closest(of [][3]int32, p []uint8) (place int) {
	best := int32(1 << 30)
	for i, c := range of {
		r, g, b := c[0]-int32(p[0]), c[1]-int32(p[1]), c[2]-int32(p[2])
		if far := r*r + g*g + b*b; far < best {
			best, place = far, i
		}
	}
	return place
}

// movingWebP says whether the head of a WebP file says that it moves.
func movingWebP(r io.Reader) bool {
	var head [21]byte
	_, err := io.ReadFull(r, head[:])
	return err == nil && string(head[12:16]) == "VP8X" && head[20]&2 != 0
}
