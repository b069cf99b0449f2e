"""Entry point of the app: page configuration and navigation."""

import streamlit as st

from colorizer.app.widgets import state
from colorizer.config import ASSETS

st.set_page_config(page_title="Colorizer", page_icon=str(ASSETS / "icon.png"), layout="wide")
# Wide tables scroll instead of the page, columns stack on a tablet, text on the dark theme's light accent is dark, and
# the gallery keeps the places of its pictures free before they are drawn.
st.html(
    "<style>[data-testid=stMarkdownContainer]:has(> table) { overflow-x: auto }"
    "@media (max-width: 900px) { [data-testid=stColumn] { min-width: calc(100% - 1.5rem) } }"
    "[data-testid=stBaseButton-primary]:enabled, [data-tag] { color: light-dark(white, #171412) !important }"
    "[class*=st-key-triptych-] { aspect-ratio: 588 / 192 }</style>"
)
page = st.navigation(
    [
        st.Page("colorizer/app/pages/start.py", title="Start", icon=":material/home:", default=True),
        st.Page("colorizer/app/pages/gallery.py", title="Gallery", icon=":material/grid_view:"),
        st.Page("colorizer/app/pages/photo.py", title="Your photo", icon=":material/photo_camera:"),
        st.Page("colorizer/app/pages/train.py", title="Train", icon=":material/model_training:"),
        st.Page("colorizer/app/pages/how.py", title="How it works", icon=":material/school:", url_path="how-it-works"),
    ],
    position="top",
)
state.give_memory_back()
page.run()
