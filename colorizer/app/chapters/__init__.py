"""The chapters of How it works. Each is a title, a short text, and a function that shows one thing to move."""

from collections.abc import Callable
from typing import NamedTuple

from colorizer.app.chapters import bottleneck, game, gray, learning, mean, notebook, numbers


class Chapter(NamedTuple):
    """One chapter.

    Attributes:
        slug: Its name in the address.
        title: A few words.
        text: At most 90 words of Markdown.
        show: Shows what the visitor moves.
        more: Markdown for who wants to know more.
    """

    slug: str
    title: str
    text: str
    show: Callable[[], None]
    more: str


CHAPTERS = (
    Chapter(
        "gray",
        "Gray is a sum",
        "A screen mixes each pixel from red, green and blue. Its gray value, the *luminance*, is a weighted sum of "
        "the three, with much green in it, since eyes see green best. Move the weights and watch the gray picture. "
        "One number cannot tell three apart: very different colours become the same gray. A network that colours a "
        "gray picture must guess which of them it was.",
        gray.show,
        "The usual weights are those of ITU-R BT.601: Y = 0.299 R + 0.587 G + 0.114 B, on the values that are "
        "stored in the file. The opposite colour is the first one mirrored at its own gray, as far as a screen can "
        "show it.",
    ),
    Chapter(
        "numbers",
        "A picture is numbers",
        "For a network, a gray picture of 32 x 32 pixels is 1,024 numbers from 0 to 1. A dense network sees no "
        "rows and columns: it gets all numbers in one line, row after row. Unroll the picture and see how "
        "neighbours above and below move far apart. A convolution keeps the picture as it is, which is one reason "
        "why it learns faster.",
        numbers.show,
        "The output is 3,072 numbers: red, green and blue of each pixel. The order in the line does not matter to "
        "a dense layer. It would learn as well if all pixels were shuffled, as long as they are shuffled in the "
        "same way each time.",
    ),
    Chapter(
        "bottleneck",
        "The bottleneck",
        "An *autoencoder* squeezes its input through a few numbers, the bottleneck, and rebuilds the picture from "
        "them. Few numbers keep only broad shapes; more keep detail. Each number stands for a pattern that is "
        "added to the mean picture. Choose one of them and change its value.",
        bottleneck.show,
        "This is the best linear autoencoder, known in closed form for every width (reduced-rank regression, "
        "Izenman 1975), so it answers at once. The trained models put hidden layers around their bottleneck. The "
        "patterns look like waves, since neighbouring pixels are mostly alike, whatever a photo shows.",
    ),
    Chapter(
        "why-gray",
        "Why it comes out gray",
        "A car may be red or green, and the network cannot know. Suppose that its error is the squared distance to "
        "the true colour. Move its prediction between both colours: the error is smallest at their mean, which is "
        "a muddy tone. So a network that minimises this error paints gray what it does not know. Below is a real "
        "one that lists the possible colours instead of their mean; vividness decides what to make of the list.",
        mean.show,
        "The expected squared error is p (x - a)² + (1 - p) (x - b)². Its derivative is zero at x = p a + (1 - p) "
        "b, the mean. `unet-vivid` predicts a share for each of 128 chroma bins (Zhang et al. 2016). Vividness 0 "
        "takes their mean; more vividness first raises the shares to a power, so that likely colours win.",
    ),
    Chapter(
        "learning",
        "Learning",
        "A training shows the network a batch of images, measures its error, and changes every weight a little in the "
        "direction that makes the error smaller. Then comes the next batch. Here are two trainings that differ in one "
        "setting only. Move the slider: what does each learn first, and what does it never learn?",
        learning.show,
        "The *learning rate* says how far a weight moves in one step. If it is too low, the training takes long. If it "
        "is too high, the steps jump over the goal. On the page *Train* you can change it while a network learns.",
    ),
    Chapter(
        "notebook",
        "From the notebook to here",
        "The project began as a notebook with a published validation loss of 0.0139. That number is real, but it "
        "is not about colour: the code fitted grayscale to grayscale, as `notebook-gray` does again here. These "
        "are the steps from there, each with its error on the same 10,000 test images. The number to beat is that "
        "of the *gray copy*, which repeats the gray value in all three channels.",
        notebook.show,
        "The validation loss is that of the saved weights on the target of each model, which for `notebook-gray` "
        "is grayscale. For `unet-vivid` and `colorist` it is the mean of the losses without and with hints. The "
        "page *Gallery* compares all models in more metrics.",
    ),
    Chapter(
        "game",
        "Can you tell?",
        "One of these two pictures has its own colours, and the other got them from a network. Which one is real? "
        "After twenty rounds you see how often each model fooled you. If you cannot tell a model from the truth, "
        "you are right in half of the rounds, by chance.",
        game.show,
        "The range is the 95 % confidence interval of Wilson 1927. Twenty rounds are few, so it is wide. The score "
        "is kept for this visit only.",
    ),
)
